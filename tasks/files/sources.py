"""The source of a checkpoint as a user writes it, parsed once."""

import re
from dataclasses import dataclass
from typing import Literal

from tasks.files.object_store import is_url

#: path: a file or a folder; url: s3://BUCKET/FOLDER; hub: hf:OWNER/REPO[/FILE][@REVISION]; embedded: embedded/NAME,
#: shipped or built here (./embedded/NAME is a path); tag: pretrained:TAG of open_clip.
SourceKind = Literal["path", "url", "hub", "embedded", "tag"]
_PREFIXES: dict[str, SourceKind] = {"hf:": "hub", "pretrained:": "tag", "embedded/": "embedded"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint is.

    Attributes:
        text: as the user wrote it; errors name it.
        kind: how to read it.
        name: the text without the prefix of its kind: a path, a URL, OWNER/REPO, NAME or TAG.

    Example:
        >>> Source.parse("pretrained:openai")
        Source(text='pretrained:openai', kind='tag', name='openai')
    """

    text: str
    kind: SourceKind
    name: str

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Parse any text; whether the checkpoint exists is seen when its files are located."""
        for prefix, kind in _PREFIXES.items():
            if text.startswith(prefix):
                return cls(text, kind, text.removeprefix(prefix))
        return cls(text, "url" if is_url(text) else "path", text)

    @property
    def from_hub(self) -> bool:
        """Whether it may be downloaded from the Hugging Face hub."""
        return self.kind in ("hub", "tag")


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of the Hugging Face hub, or one file of it."""

    repo: str
    file: str | None
    revision: str | None

    @classmethod
    def of(cls, source: Source, *, files: bool = True) -> "HubName":
        """Parse the name of a source of kind "hub".

        Raises:
            ValueError: if it is not OWNER/REPO[/FILE][@REVISION], or names a file without `files`.
        """
        match = re.fullmatch(r"(?P<repo>[^/@]+/[^/@]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?", source.name)
        if match is None or (match["file"] and not files):
            raise ValueError(f"{source.text}: must be hf:OWNER/REPO{'[/FILE]' * files}[@REVISION]")
        return cls(**match.groupdict())
