"""report.md and report.html, from the same document."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kaarel_bet.content import Figure, Table, Transcript
from kaarel_bet.rendering.document import Document
from kaarel_bet.rendering.figures import draw
from kaarel_bet.rendering.words import check_rows, criterion_rows


def render(document: Document) -> tuple[dict[str, str], str, str]:
    """The figures (name -> SVG), the Markdown and the self-contained HTML."""
    figures = {
        content.name: draw(content)
        for section in document.sections
        for content in section.content
        if isinstance(content, Figure)
    }
    return (
        figures,
        _render("report.md.j2", document, {}),
        _render("report.html.j2", document, figures),
    )


def _render(template: str, document: Document, figures: dict[str, str]) -> str:
    environment = Environment(
        loader=PackageLoader("kaarel_bet.rendering"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        "table": lambda content: isinstance(content, Table),
        "figure": lambda content: isinstance(content, Figure),
        "transcript": lambda content: isinstance(content, Transcript),
    }
    environment.filters |= {"cell": _markdown_cell, "fence": _fence, "bold": _bold}
    names: dict[str, Any] = {
        "document": document,
        "findings": document.findings,
        # The drawing library escaped what it wrote.
        "figures": {name: Markup(svg) for name, svg in figures.items()},
        "criterion_rows": criterion_rows,
        "check_rows": check_rows,
    }
    return environment.get_template(template).render(names)


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _fence(text: str) -> str:
    """A code fence that the text can't close."""
    longest = max((len(run) for run in re.findall("~+", text)), default=0)
    return "~" * max(3, longest + 1)


def _bold(text: str) -> Markup:
    """HTML for a text in which **this** is emphasised."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(Markup.escape(text))))
