"""The report's tables on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as Shown

from pipeline.report.tables.table import Table

_STYLES = {"better": "green", "worse": "red", "tie": "yellow", "trade-off": "yellow", "lead": "bold", "code": "dim"}
_STYLES |= {"regressed": "bold red", "improved": "green", "no evidence": "yellow"}


def rendered(table: Table) -> Shown:
    """A table of the report for rich: names in it are not markup."""
    shown = Shown(title=escape(table.title), title_justify="left", caption=escape(table.note), caption_justify="left")
    # Narrow: nine columns and their numbers nearly fit into 80 characters, and what does not fit is folded, never cut.
    shown.box, shown.pad_edge, shown.collapse_padding = SIMPLE_HEAD, False, True
    for i, column in enumerate(table.columns):
        shown.add_column(escape(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(_cell(entry.plain, _STYLES.get(entry.tone)) for entry in row))
    return shown


def _cell(text: str, style: str | None) -> str:
    return f"[{style}]{escape(text)}[/]" if style else escape(text)
