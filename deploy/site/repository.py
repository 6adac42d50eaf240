"""Where files of the repository are in the site, and links between them."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Pages outside docs/ and those with another name there -> their page of the site.
PAGES = {
    "README.md": "index.md",
    "docs/README.md": "documentation.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "tasks/embedded/CARD.md": "embedded-models.md",
}
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
_FENCE = re.compile(r"^( *```.*?^ *```)$", flags=re.DOTALL | re.MULTILINE)


def site_path(path: str, root: Path = ROOT) -> str:
    """Return the source path, in the site, of a file or folder of the repository.

    Example:
        >>> site_path("docs/guides/paper.md"), site_path("examples/demo.yaml"), site_path("examples/paper")
        ('guides/paper.md', 'examples/demo.yaml.md', 'examples/paper/index.md')
    """
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{path}/index.md" if (root / path).is_dir() else f"{path}.md"


def with_site_links(markdown: str, page: str) -> str:
    """Return the text of a page of the repository with relative links as the site has them.

    Args:
        markdown: the text.
        page: its path in the repository.
    """
    here = posixpath.dirname(site_path(page))

    def moved(match: re.Match[str]) -> str:
        target, hash_, anchor = match[0].partition("#")
        if not target or "://" in target:
            return match[0]
        there = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(page), target)))
        return posixpath.relpath(there, here or ".") + hash_ + anchor

    return _outside_fences(markdown, lambda prose: _LINK.sub(moved, prose))


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Return a text whose parts outside fenced code are changed."""
    return "".join(part if i % 2 else change(part) for i, part in enumerate(_FENCE.split(markdown)))


def index_links(index: str) -> list[tuple[str, list[str]]]:
    """Return the sections of docs/README.md: title, and the linked files that begin its rows."""
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", index, flags=re.DOTALL | re.MULTILINE)
    return [(title, re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", text, flags=re.MULTILINE)) for title, text in sections]
