import re
from collections import Counter
from xml.etree import ElementTree

import pytest

from kaarel_bet.claims import Verdict
from kaarel_bet.content import Grid, GridFigure, GridRow, Section
from kaarel_bet.rendering.document import Document
from kaarel_bet.rendering.figures import draw
from kaarel_bet.rendering.files import render

Rectangle = tuple[float, float, float, float]

PALETTE = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)


def drawn(*rows: GridRow) -> ElementTree.Element:
    return ElementTree.fromstring(draw(GridFigure("grids", rows)))


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()).strip() for text in svg.findall(".//{*}text")]


def rectangles(svg: ElementTree.Element) -> list[tuple[str, Rectangle]]:
    """Colour and (left, top, right, bottom) of all that is filled."""
    found: list[tuple[str, Rectangle]] = []
    for path in svg.findall(".//{*}g[@id='axes_1']/{*}g/{*}path"):
        style = path.get("style", "")
        colour = re.search("fill: (#......)", style)
        if "stroke" in style:  # a line or a frame
            continue
        for part in path.get("d", "").split("M")[1:]:
            numbers = [float(number) for number in re.findall(r"[\d.]+", part)]
            box = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
            found.append((colour[1] if colour else "#000000", box))
    return found


def read_back(svg: ElementTree.Element, shape: tuple[int, int]) -> Grid:
    """The one grid of a figure, from where its colours are."""
    found = rectangles(svg)
    left, top = min(box[0] for _, box in found), min(box[1] for _, box in found)
    cell = (max(box[3] for _, box in found) - top) / shape[0]
    cells = [[-1] * shape[1] for _ in range(shape[0])]
    for colour, box in found:
        first, last = round((box[0] - left) / cell), round((box[2] - left) / cell)
        for column in range(first, last):
            cells[round((box[1] - top) / cell)][column] = PALETTE.index(colour)
    return tuple(tuple(row) for row in cells)


def pattern(n_rows: int, n_columns: int) -> Grid:
    return tuple(tuple((i * j + i) % 10 for j in range(n_columns)) for i in range(n_rows))


@pytest.mark.parametrize(
    "grid", [((3,),), (tuple(range(10)),), pattern(7, 4), pattern(30, 30), pattern(1, 30)]
)
def test_every_cell_has_its_colour_of_arc(grid: Grid) -> None:
    svg = drawn(GridRow("a task", {"input": grid}))
    assert read_back(svg, (len(grid), len(grid[0]))) == grid


def test_grids_have_their_labels_and_rows_their_titles() -> None:
    svg = drawn(
        GridRow("solved", {"input": pattern(2, 2), "expected": pattern(3, 3)}),
        GridRow("unsolved & <odd> $x$", {"input": pattern(1, 1)}),
    )
    assert Counter(texts(svg)) == Counter(
        ["solved", "input", "expected", "unsolved & <odd> $x$", "input"]
    )


def test_what_could_not_be_read_is_an_empty_frame_with_its_label() -> None:
    svg = drawn(GridRow("a task", {"predicted": None}))
    assert "predicted" in texts(svg)
    assert rectangles(svg) == []
    assert "stroke-dasharray" in ElementTree.tostring(svg, encoding="unicode")


def test_grids_of_a_row_have_cells_of_the_same_size() -> None:
    svg = drawn(GridRow("a task", {"input": pattern(3, 2), "output": pattern(30, 30)}))
    heights = [box[3] - box[1] for _, box in rectangles(svg)]
    assert heights == pytest.approx([heights[0]] * len(heights), abs=0.1)


def test_more_grids_than_fit_a_line_go_on_below() -> None:
    few, many = (
        drawn(GridRow("a task", {f"grid {i}": pattern(30, 30) for i in range(n)})) for n in (2, 7)
    )
    assert float(many.attrib["width"].rstrip("pt")) < 700
    assert float(many.attrib["height"].rstrip("pt")) > float(few.attrib["height"].rstrip("pt"))
    boxes = {tuple(round(x, 1) for x in box) for _, box in rectangles(many)}
    assert len(boxes) == len(rectangles(many)), "grids lie on each other"


def test_numbers_are_written_where_there_is_room() -> None:
    uses = [
        len(drawn(GridRow("a task", {"input": grid})).findall(".//{*}use"))
        for grid in (((1, 2), (0, 2)), tuple((1,) * 60 for _ in range(30)))
    ]
    assert uses == [3, 0]


def test_a_report_shows_grids_with_their_name() -> None:
    figure = GridFigure("solved-tasks", [GridRow("a task", {"input": pattern(2, 2)})])
    verdict = Verdict(name="n", claim="c", outcome="undecided", summary="s", criteria=(), checks=())
    section = Section("Tasks", "", [figure])
    files, markdown, html = render(Document("ARC", "?", [verdict], [section]))
    assert files.keys() == {"solved-tasks"}
    assert "![solved-tasks](figures/solved-tasks.svg)" in markdown
    assert 'aria-label="solved-tasks"' in html
