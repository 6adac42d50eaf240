"""The checkpoints of a spec: every source is parsed once and located once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from pipeline.checkpoints.files import CheckpointFiles, locate
from pipeline.spec.sources import ModelSpec
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.models import Report, nearby
from tasks.files.sources import Source
from tasks.files.store_errors import UnreachableError

_BASE = "base"


class SpecSources:
    """The base and the experts of a spec as files of this machine.

    The text of a source is read here and nowhere else. A source is located when its files are first used, and never
    again: `missing` locates all but those that the hub still has to give, which are downloaded one after the other.

    Example:
        >>> spec = load_spec(Path("quickstart.yaml"))
        >>> sources = SpecSources(spec, spec.experts)
        >>> sources.base.weights
        (PosixPath('/.../tasks/embedded/checkpoints/base.safetensors'),)
        >>> {name: files.label for name, files in sources.experts()}
        {'fashion': 'embedded/fashion', 'digits': 'embedded/digits'}
    """

    def __init__(self, spec: ModelSpec, experts: Mapping[str, str] = MappingProxyType({})) -> None:
        """Parse the sources of the base of `spec`, and of `experts` by name."""
        self.parsed = {_BASE: Source.parse(spec.base)}
        """Field of the spec -> source, the base's first."""
        self.parsed |= {_field(name): Source.parse(source) for name, source in experts.items()}
        self._model = spec.backbone.model
        self._names = tuple(experts)
        self._located: dict[str, CheckpointFiles] = {}

    @property
    def base(self) -> CheckpointFiles:
        """The files of the base.

        Raises:
            ValueError: if they are not found, or are an adapter; the field is named.
        """
        return self._files(_BASE)

    def expert(self, name: str) -> CheckpointFiles:
        """Return the files of an expert.

        Raises:
            ValueError: if they are not found; the field is named.
        """
        return self._files(_field(name))

    def experts(self) -> Iterator[tuple[str, CheckpointFiles]]:
        """Yield (name, files) of each expert, in the order of the spec.

        Raises:
            ValueError: as `expert`.
        """
        return ((name, self.expert(name)) for name in self._names)

    def fetch_urls(self, report: Report) -> None:
        """Download what URLs name; `missing` reports what cannot be had, all at once.

        Raises:
            UnreachableError: if a store gives no answer: asking it again for every checkpoint would take long.
        """
        for source in self.parsed.values():
            if source.kind != "url":
                continue
            try:
                nearby(source.text, lambda name, done, total: report(f"fetching {name}", done, total))
            except UnreachableError:
                raise
            except ValueError:
                continue

    def missing(self) -> dict[str, str]:
        """Return an error for each checkpoint that cannot be had, by its field; nothing is downloaded from the hub.

        If some could only come from the hub, and it gives no answer, "hub" comes first and says so for all of them.
        """
        silence = hub_silence() if any(source.from_hub for source in self.parsed.values()) else None
        missing = {}
        for field, source in self.parsed.items():
            if source.from_hub and silence is None:
                continue
            try:
                self._files(field)
            except ValueError as error:
                missing[field] = str(error).removesuffix(f", and {out_of_reach()}") if source.from_hub else str(error)
        if any(self.parsed[field].from_hub for field in missing):
            return {"hub": out_of_reach(), **missing}
        return missing

    def _files(self, field: str) -> CheckpointFiles:
        if field not in self._located:
            try:
                self._located[field] = self._base_files() if field == _BASE else locate(self.parsed[field])
            except ValueError as error:
                text = str(error)
                raise ValueError(text if text.startswith("backbone.") else f"{field}: {text}") from error
        return self._located[field]

    def _base_files(self) -> CheckpointFiles:
        source = self.parsed[_BASE]
        if source.kind == "tag":
            from tasks.vision.clip.architectures import pretrained_source  # open_clip: not for files

            path = pretrained_source(self._model, source.name)
            return CheckpointFiles(source, (Path(path),), path)
        files = locate(source)
        files.check_whole()
        return files


def _field(expert: str) -> str:
    return f"experts.{expert}"
