"""The rendering of the report's tables on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as RichTable

from pipeline.report.tables.table import Table

_STYLES = {"better": "green", "worse": "red", "tie": "yellow", "trade-off": "yellow", "lead": "bold", "code": "dim"}
_STYLES |= {"regressed": "bold red", "improved": "green", "no evidence": "yellow"}


def rendered(table: Table) -> RichTable:
    """Return a table of the report for rich, with the names in it escaped."""
    title, caption = escape(table.title), escape(table.note)
    found = RichTable(title=title, title_justify="left", caption=caption, caption_justify="left")
    # Narrow: nine columns of numbers nearly fit into 80 characters; longer texts are folded, never cut.
    found.box, found.pad_edge, found.collapse_padding = SIMPLE_HEAD, False, True
    for i, column in enumerate(table.columns):
        found.add_column(escape(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        found.add_row(*(_cell(entry.plain, _STYLES.get(entry.tone)) for entry in row))
    return found


def _cell(text: str, style: str | None) -> str:
    return f"[{style}]{escape(text)}[/]" if style else escape(text)
