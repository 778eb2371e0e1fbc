"""report.md and report.html, from the same document."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kaarel_bet.content import Figure, Table, Transcript
from kaarel_bet.rendering.document import Document, check_rows, criterion_rows, note_rows
from kaarel_bet.rendering.figures import draw


def render(document: Document) -> tuple[dict[str, str], str, str]:
    """The figures (name -> SVG), the Markdown and the self-contained HTML."""
    figures = {
        content.name: draw(content)
        for section in document.sections
        for content in section.content
        if isinstance(content, Figure)
    }
    markdown, html = (_render(f"report.{kind}.j2", document, figures) for kind in ("md", "html"))
    return figures, markdown, html


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
    return environment.get_template(template).render(
        document=document,
        # The drawing library escaped what it wrote.
        figures={name: Markup(svg) for name, svg in figures.items()},
        criterion_rows=criterion_rows,
        check_rows=check_rows,
        note_rows=note_rows,
    )


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _fence(text: str) -> str:
    """A code fence that the text can't close."""
    longest = max((len(run) for run in re.findall("~+", text)), default=0)
    return "~" * max(3, longest + 1)


def _bold(text: str) -> Markup:
    """HTML for a text in which **this** is emphasised."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(Markup.escape(text))))
