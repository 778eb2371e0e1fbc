"""Reports on the terminal: the compact tables, and last the verdicts."""

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from kaarel_bet.content import Table
from kaarel_bet.rendering.document import Document, check_rows, criterion_rows, note_rows

_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def print_report(document: Document, console: Console) -> None:
    """Prints the compact tables and, last, the verdicts and what people noted beside them."""
    for section in document.sections:
        for content in section.content:
            if isinstance(content, Table) and content.compact:
                _print_table(console, section.title, content)
    for verdict in document.verdicts:
        title = f"Claim {verdict.outcome}"
        if len(document.verdicts) > 1:  # of one alone the last lines are enough
            console.print(Text(verdict.claim, style="bold"), "")
            title = f"Claim {verdict.name} {verdict.outcome}"
        _print_table(console, "Criteria", criterion_rows(verdict))
        _print_table(console, "Checks", check_rows(verdict))
        colour = _COLOURS[verdict.outcome]
        console.print(Panel(Text(verdict.summary), title=title, border_style=colour))
    if document.notes:
        _print_table(console, "Notes", note_rows(document.notes))


def _print_table(console: Console, title: str, table: Table) -> None:
    """The widest columns give way where there is no room, down to their longest words.

    A number whose exponent is cut off is another number, so a table may be wider than the terminal.
    """
    shown = RichTable(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for cells in zip(table.columns, *table.rows, strict=True):
        words = [word for cell in cells for word in cell.split()]
        shown.add_column(cells[0], min_width=max(map(cell_len, words), default=0))
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown, "", crop=False)
