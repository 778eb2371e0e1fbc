"""What reports are made of, independent of how it is rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kaarel_bet.estimates import Estimate


@dataclass(frozen=True)
class Table:
    """A table of ready texts. `compact` tables are shown in the terminal as well."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    compact: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: group -> series -> every point, log10 of it on a log scale."""

    title: str
    groups: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class PointFigure:
    """Every point of some groups on a scale that all panels share, a log scale unless `log` is false."""

    name: str
    y_label: str
    panels: Sequence[Panel]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Label -> a value to draw a line at, its log10 on a log scale."""
    log: bool = True


@dataclass(frozen=True)
class LineFigure:
    """Lines on a log scale: label -> (x, log10 of y) of every point.

    A line of no points is not drawn, and a point that is not a number breaks its line; in figures with
    the same labels, lines look the same.
    """

    name: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class IntervalFigure:
    """Shares with their intervals: group -> series -> estimate, from 0 to 1.

    `connected` draws lines from group to group, for groups that are the steps of something.
    """

    name: str
    y_label: str
    groups: Mapping[str, Mapping[str, Estimate]]
    x_label: str = ""
    connected: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Shares as a matrix of cells: `values[row][column]`, from 0 to 1, or NaN where there is none."""

    name: str
    y_label: str
    x_label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]


Grid = tuple[tuple[int, ...], ...]
"""Rows of cells, each a colour's number from 0 to 9, as in ARC."""


@dataclass(frozen=True)
class GridRow:
    """Grids beside each other: label -> grid, None where there is none that can be read."""

    title: str
    grids: Mapping[str, Grid | None]


@dataclass(frozen=True)
class GridFigure:
    """Coloured grids, in rows."""

    name: str
    rows: Sequence[GridRow]


Figure = PointFigure | LineFigure | IntervalFigure | HeatMap | GridFigure


@dataclass(frozen=True)
class Transcript:
    """A prompt as the model saw it, and what each arm answered."""

    title: str
    prompt: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, a paragraph and what it is about."""

    title: str
    text: str = ""
    content: Sequence[Table | Figure | Transcript] = ()
