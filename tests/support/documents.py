"""The code blocks and commands of the README and the documents."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "tasks" / "embedded" / "CARD.md"]
#: Title of a YAML block that lacks required fields; a block without a title is a whole spec.
PART = "part of a spec"
#: What the title of a YAML block says if it is a file of another program.
_OTHERS = ("of lm-evaluation-harness", "of mergekit")
_BLOCK = re.compile(r'^ *```(\w+)(?: title="([^"]*)")?\n(.*?)^ *```$', flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its page, language, title ("" if it has none) and text."""

    page: Path
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        """Name the block by its page and first line."""
        return f"{self.page.relative_to(ROOT).as_posix()}: {self.text.splitlines()[0]}"


def blocks(*languages: str) -> list[Block]:
    """The blocks in these languages, in the order of pages and lines."""
    found = [Block(page, *match) for page in PAGES for match in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [Block(b.page, b.language, b.title, textwrap.dedent(b.text)) for b in found if b.language in languages]


def spec_blocks() -> list[Block]:
    """The YAML blocks but those whose title says that they are files of another program."""
    return [block for block in blocks("yaml") if not any(other in block.title for other in _OTHERS)]


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[Block, list[str]]]:
    """The commands in blocks, as words, without comments; a command may go on after a backslash."""
    for block in blocks("console", "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield block, words


def mentions() -> Iterator[tuple[Path, list[str]]]:
    """Mentions of `lines ...` in prose: page and words, without what follows for the shell."""
    for page in PAGES:
        for text in re.findall(r"`(lines [^`]+)`", prose(page)):
            yield page, shlex.split(re.split(r" >", text)[0])
