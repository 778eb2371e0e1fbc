"""The answers to the counting questions are right by another way of counting."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.data import TrainingExample
from kaarel_bet.experiments.arc.grids import Grid, Unreadable, decode, size
from kaarel_bet.experiments.arc.prompts import QUESTIONS, counting_examples, objects
from tests.kaarel_bet.experiments.arc_tasks import grids


def areas_by_colour(grid: Grid) -> dict[int, list[int]]:
    """Colour -> the areas of its objects, by joining touching cells until nothing is left to join."""
    parent = {
        (i, j): (i, j) for i, row in enumerate(grid) for j, colour in enumerate(row) if colour
    }

    def root(cell: tuple[int, int]) -> tuple[int, int]:
        while parent[cell] != cell:
            cell = parent[cell]
        return cell

    for i, j in list(parent):
        for other in ((i + 1, j), (i, j + 1)):
            if other in parent and grid[other[0]][other[1]] == grid[i][j]:
                parent[root(other)] = root((i, j))
    found: defaultdict[int, list[int]] = defaultdict(list)
    for (i, j), area in Counter(map(root, parent)).items():
        found[grid[i][j]].append(area)
    return found


def turns(example: TrainingExample) -> tuple[Grid, dict[str, str]]:
    """The grid of a chat, and its answers by their questions."""
    assert example.messages is not None
    assert [m.role for m in example.messages] == ["system", *["user", "assistant"] * 5]
    contents = [m.content for m in example.messages]
    shown, _, first = contents[1].rpartition("\n\n")
    grid = decode(shown, "rows")
    assert not isinstance(grid, Unreadable)
    return grid, dict(zip((first, *contents[3::2]), contents[2::2], strict=True))


@given(seed=st.integers(0, 10_000), max_side=st.integers(2, 30))
def test_all_five_questions_are_answered_rightly(seed: int, max_side: int) -> None:
    (example,) = counting_examples(1, seed, "rows", max_side)
    grid, answers = turns(example)
    assert max(size(grid)) <= max_side
    found = areas_by_colour(grid)
    areas = sorted(area for of_colour in found.values() for area in of_colour)
    assert answers == {
        "How many objects are there?": str(len(areas)),
        "What are the areas of the objects, in ascending order?": ", ".join(map(str, areas)),
        "What is the area of the largest object?": str(areas[-1]),
        "What is the area of the smallest object?": str(areas[0]),
        "How many objects are there of each colour?": ", ".join(
            f"{colour}: {len(found[colour])}" for colour in sorted(found)
        ),
    }


@given(grid=grids(max_side=8))
def test_objects_of_any_grid_are_those_that_joining_finds(grid: Grid) -> None:
    expected = [(c, area) for c, areas in areas_by_colour(grid).items() for area in areas]
    assert sorted(objects(grid)) == sorted(expected)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (((0, 0), (0, 0)), []),
        (((1, 0), (0, 1)), [(1, 1), (1, 1)]),  # corners don't connect
        (((1, 2), (1, 2)), [(1, 2), (2, 2)]),  # nor do colours
        (((1, 1, 1), (1, 0, 1), (1, 1, 1)), [(1, 8)]),
    ],
)
def test_an_object_is_one_colour_connected_through_sides(
    grid: Grid, expected: list[tuple[int, int]]
) -> None:
    assert objects(grid) == expected


def test_examples_are_many_kinds_and_the_seed_decides_which() -> None:
    examples = counting_examples(200, 0, "rows", 10)
    assert examples == counting_examples(200, 0, "rows", 10)
    assert examples != counting_examples(200, 1, "rows", 10)
    grids, answers = zip(*map(turns, examples), strict=True)
    assert len({size(grid) for grid in grids}) > 30
    assert {frozenset(QUESTIONS)} == {frozenset(a) for a in answers}
    assert len({next(iter(a)) for a in answers}) == 5  # each of the questions is asked first
    for question in QUESTIONS:
        assert len({a[question] for a in answers}) >= 5


def test_a_larger_number_of_examples_starts_with_the_smaller() -> None:
    assert counting_examples(20, 3, "shape", 10)[:5] == counting_examples(5, 3, "shape", 10)
