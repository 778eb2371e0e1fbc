"""Findings on the terminal."""

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from kaarel_bet.claims import Verdict
from kaarel_bet.content import Table
from kaarel_bet.experiments.interface import Findings
from kaarel_bet.rendering.words import check_rows, criterion_rows

_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def print_findings(findings: Findings, console: Console) -> None:
    """Prints the compact tables and, last, the verdicts."""
    for section in findings.sections:
        for content in section.content:
            if isinstance(content, Table) and content.compact:
                _print_table(console, section.title, content)
    for verdict in findings.verdicts:
        if len(findings.verdicts) > 1:  # of one alone the last lines are enough
            console.print(Text(verdict.claim, style="bold"), "")
        _print_verdict(console, verdict)


def _print_verdict(console: Console, verdict: Verdict) -> None:
    _print_table(console, "Criteria", criterion_rows(verdict))
    _print_table(console, "Checks", check_rows(verdict))
    colour = _COLOURS[verdict.outcome]
    text = Text(verdict.summary)
    console.print(Panel(text, title=f"Claim {verdict.outcome}", border_style=colour))


def _print_table(console: Console, title: str, table: Table) -> None:
    shown = RichTable(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for column in table.columns:
        shown.add_column(column)
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown, "")
