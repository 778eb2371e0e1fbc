"""Grids survive being written and read; what is no grid is named and never raises."""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet.experiments.arc.grids import (
    N_SAMPLED,
    Encoding,
    Grid,
    Pair,
    Unreadable,
    cells_without_token,
    decode,
    encode,
)
from kaarel_bet.experiments.interface import Tokenize
from tests.kaarel_bet.experiments.arc_tasks import grids

_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
_GRID: Grid = ((0, 1, 2), (3, 4, 5))
encodings = st.sampled_from(_ENCODINGS)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("rows", "```grid\n012\n345\n```"),
        ("shape", "```grid shape: 2x3\n012\n345\n```"),
        ("numbered", "```grid\n1 012\n2 345\n```"),
    ],
)
def test_a_grid_is_written_as_documented(encoding: Encoding, text: str) -> None:
    assert encode(_GRID, encoding) == text


@given(grid=grids(), encoding=encodings, before=st.sampled_from(["", "The answer:\n", "\r\n"]))
def test_what_was_written_is_read(grid: Grid, encoding: Encoding, before: str) -> None:
    text = encode(grid, encoding)
    assert decode(text, encoding) == grid
    assert decode(before + text + "\nThat is it. ```grid\n7\n```", encoding) == grid
    assert decode(text.replace("\n", "\r\n"), encoding) == grid


_PIECES = st.sampled_from(
    ["```", "```grid", "\n", "12", "1 ", " ", "x", "٣", "²", "\r", "\x00", "\u2028"]
)


@given(
    text=st.one_of(st.text(), st.lists(_PIECES, max_size=40).map("".join)),
    encoding=encodings,
)
def test_any_text_is_a_valid_grid_or_has_a_reason(text: str, encoding: Encoding) -> None:
    found = decode(text, encoding)
    if not isinstance(found, Unreadable):
        Pair(input=found, output=found)  # raises for what is no grid


@pytest.mark.parametrize(
    ("text", "encoding", "reason"),
    [
        ("", "rows", Unreadable.NO_FENCE),
        ("012\n345", "rows", Unreadable.NO_FENCE),
        ("```grid\n012\n34", "rows", Unreadable.UNFINISHED),
        ("```grid\n```", "rows", Unreadable.EMPTY),
        ("```grid\n012\n345\n```", "numbered", Unreadable.NOT_NUMBERED),
        ("```grid\n1 012\n345\n```", "numbered", Unreadable.NOT_NUMBERED),
        ("```grid\n1 012\n2 34\n```", "rows", Unreadable.NOT_DIGITS),
        ("```grid\n0a2\n345\n```", "rows", Unreadable.NOT_DIGITS),
        ("```grid\n012\n\n345\n```", "rows", Unreadable.NOT_DIGITS),
        ("```grid\n٣\n```", "rows", Unreadable.NOT_DIGITS),
        ("```grid\n012\n34\n```", "rows", Unreadable.RAGGED),
        ("```grid\n" + "0" * 31 + "\n```", "shape", Unreadable.TOO_LARGE),
        ("```grid\n" + "0\n" * 31 + "```", "shape", Unreadable.TOO_LARGE),
    ],
)
def test_the_reason_is_named(text: str, encoding: Encoding, reason: Unreadable) -> None:
    assert decode(text, encoding) is reason


def test_only_the_rows_count() -> None:
    assert decode("```grid shape: 9x9\n012\n345\n```", "shape") == _GRID
    assert decode("```grid\n1 012\n7 345\n```", "numbered") == _GRID


def tokenizer(pattern: str) -> Tokenize:
    """One that takes what matches the pattern for a token, and else every character for one."""
    return lambda text: tuple(hash(part) for part in re.findall(f"(?s:{pattern}|.)", text))


@pytest.mark.parametrize("encoding", _ENCODINGS)
@pytest.mark.parametrize(
    ("pattern", "missing"),
    [
        ("[0-9]", 0),
        ("```|grid|\n+|[a-z]+", 0),
        ("[0-9]{1,3}", 100 * 20),  # of 29 cells beyond the first 9 have tokens: 30 are 10, 1 is 1
        ("77", 15),  # of the sampled rows only the one of sevens has the pair, 15 times
    ],
)
def test_cells_without_a_token_of_their_own_are_counted(
    encoding: Encoding, pattern: str, missing: int
) -> None:
    tokenize = tokenizer(pattern)
    assert cells_without_token(tokenize, encoding) == missing


def test_every_pair_of_digits_is_in_the_sample() -> None:
    for pair in (f"{i:02}" for i in range(100)):
        assert cells_without_token(tokenizer(pair), "rows") > 0
    assert cells_without_token(lambda _: (), "rows") == N_SAMPLED
