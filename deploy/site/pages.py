"""Hooks of mkdocs (mkdocs.yml): pages that have no file in docs/, navigation, and links between files.

Pages are taken from the repository as they are, so that the same files read well on GitHub. The site adds the README
and its neighbours, the files of examples, the interface in Python (from docstrings) and the fields of specs (from the
models).
"""

import os
import re
from pathlib import Path
from typing import get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from deploy.site.fields import fields_page
from deploy.site.interface import INTERFACE
from deploy.site.repository import PAGES, ROOT, index_links, site_path, with_site_links
from pipeline.spec.command_names import Command

SHOWN = ("examples", "deploy/slurm")
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".sbatch": "bash", "": "text", ".txt": "text"}
#: Pages that a search should find last.
SECONDARY = (*SHOWN, "changelog", "embedded-models", "internals")
PINS = site_path("constraints.txt")
ASSETS = ROOT / "deploy" / "site" / "assets"
FIELDS = {f"reference/fields/{command}.md": command for command in get_args(Command)}
#: Page of the site -> the file of the repository whose links it has.
_sources: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> None:
    """Set the navigation: the sections of docs/README.md, with the generated pages where they belong."""
    config.nav = [{"Home": "index.md"}]
    for title, links in index_links((ROOT / "docs" / "README.md").read_text(encoding="utf-8")):
        pages: list[object] = list(links)
        if title == "Reference":
            pages += [{"Python in full": list(INTERFACE)}, {"Every field": list(FIELDS)}]
        if title == "Internals":
            pages += [PAGES["CONTRIBUTING.md"], PAGES["SECURITY.md"], PAGES["CHANGELOG.md"]]
        config.nav.append({title: pages})
    config.nav[1]["Start"].append(PAGES["docs/README.md"])
    config.nav.append({"Examples": ["examples/index.md", PAGES["tasks/embedded/CARD.md"]]})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what docs/ does not hold."""
    _sources.clear()
    if index := files.get_file_from_path("README.md"):
        files.remove(index)
    _sources.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    _sources.update({page: path for path, page in PAGES.items()})
    made = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in PAGES.items()}
    made |= INTERFACE | {page: fields_page(command) for page, command in FIELDS.items()}
    for top in SHOWN:
        for path in [ROOT / top, *sorted((ROOT / top).rglob("*"))]:
            if path.is_dir() or path.suffix in LANGUAGES:
                made[site_path(path.relative_to(ROOT).as_posix())] = _folder(path) if path.is_dir() else _file(path)
    made[PINS] = _file(ROOT / "constraints.txt")
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for asset in ASSETS.iterdir():
        files.append(File.generated(config, f"assets/{asset.name}", abs_src_path=str(asset)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into those between pages."""
    if page.file.src_uri.startswith(SECONDARY):
        page.meta["search"] = {"boost": 0.3}
    if page.file.src_uri == PINS:
        page.meta["search"] = {"exclude": True}
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    source = _sources.get(page.file.src_uri)
    return with_site_links(markdown, source) if source else markdown


def _file(path: Path) -> str:
    text, language = path.read_text(encoding="utf-8"), LANGUAGES[path.suffix]
    return f"{_title(path)}\n\n````{language}\n{text}\n````\n"


def _folder(path: Path) -> str:
    rows = [
        f"- [{each.name}]({each.name}{'/index' if each.is_dir() else ''}.md){_purpose(each)}" for each in _shown(path)
    ]
    return "\n".join([_title(path), "", *rows, ""])


def _title(path: Path) -> str:
    """Return a page's heading, and links to the folders that it is in, which the navigation does not have."""
    name = path.relative_to(ROOT)
    shown = [parent for parent in reversed(name.parents) if any(parent.is_relative_to(top) for top in SHOWN)]
    links = [
        f"[{parent.name}]({os.path.relpath(parent, name if path.is_dir() else name.parent)}/index.md)"
        for parent in shown
    ]
    return f"# {name}" + (f"\n\nIn {' / '.join(links)}" if links else "")


def _shown(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix in LANGUAGES]


def _purpose(path: Path) -> str:
    """Return the first sentence of a file's comment."""
    if path.is_dir():
        return ""
    comment = re.search(r"(?:^# (?!yaml-language-server).*\n)+", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    words = " ".join(comment[0].replace("\n# ", " ").removeprefix("# ").split()) if comment else ""
    return f": {words.partition('. ')[0].rstrip('.')}" if words else ""
