"""Check a built site: every link and anchor of its pages exists, and no page loads anything from another host.

Run as `python -m deploy.site.check FOLDER`.
"""

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Element -> the attribute whose content a browser fetches by itself.
_LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class _Page(HTMLParser):
    """The links and anchors of a page: pairs of address and whether it is loaded."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append((found["href"], False))
        if (name := _LOADED.get(tag)) and name in found and found.get("rel") not in ("canonical", "edit"):
            self.links.append((found[name], True))


_read = cache(_Page)


def faults(site: Path) -> Iterator[str]:
    """Yield each fault: the page, the address and what is wrong."""
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # has absolute addresses, for servers
            continue
        for address, loaded in _read(path).links:
            if fault := _fault(path, address, loaded):
                yield f"{path.relative_to(site)}: {address}: {fault}"


def _fault(path: Path, address: str, loaded: bool) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return "is loaded from another host" if loaded else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    missing = anchor and target.suffix == ".html" and anchor not in _read(target).anchors
    return "no such anchor" if missing else ""


def main(site: Path) -> int:
    """Print the faults and the number of pages, and return the exit status."""
    pages, found = len(list(site.rglob("*.html"))), list(faults(site))
    print(*found, f"{site}: {pages} pages, {len(found)} faults", sep="\n")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
