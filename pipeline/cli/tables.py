"""The rendering of the report's tables on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.report.tables.table import Table

_STYLES = {"better": "green", "worse": "red", "tie": "yellow", "trade-off": "yellow", "lead": "bold", "code": "dim"}
_STYLES |= {"regressed": "bold red", "improved": "green", "no evidence": "yellow"}


def rendered(table: Table) -> RichTable:
    """Return a table of the report for rich, whose cells are not read as markup."""
    found = RichTable(title=Text(table.title), title_justify="left", caption=Text(table.note), caption_justify="left")
    # Narrow: nine columns of numbers nearly fit into 80 characters; longer texts are folded, never cut.
    found.box, found.pad_edge, found.collapse_padding = SIMPLE_HEAD, False, True
    for i, column in enumerate(table.columns):
        found.add_column(Text(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        found.add_row(*(_cell(entry.plain, _STYLES.get(entry.tone)) for entry in row))
    return found


def _cell(text: str, style: str | None) -> Text:
    return Text(text, style or "")
