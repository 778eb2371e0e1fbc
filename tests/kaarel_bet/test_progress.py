import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from backends.data import ScoringQuery, ScoringResult
from backends.interface import Backend, Progress
from kaarel_bet import progress as shown
from kaarel_bet import test as test_step
from kaarel_bet import train
from kaarel_bet.executors.carrying_out import carry_out
from kaarel_bet.executors.local import LocalExecutor
from kaarel_bet.manifest import EvaluationEntry
from kaarel_bet.session import Session


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that progress is measured with."""
    now = 1000.0

    def move(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("time.monotonic", lambda: now)
    return move


def test_the_time_that_is_left_does_not_count_what_came_before_the_first_report(
    pass_time: Callable[[float], None],
) -> None:
    out = io.StringIO()
    with shown.progress(Console(file=out), "train") as report:
        pass_time(100)  # the model is loaded
        report(0, 40, "")
        pass_time(20)
        report(10, 40, "")
    assert out.getvalue().splitlines()[-1] == "train: 10/40, 60 s left"


def test_work_that_is_taken_up_is_timed_from_where_it_was(
    pass_time: Callable[[float], None],
) -> None:
    out = io.StringIO()
    with shown.progress(Console(file=out), "train") as report:
        report(20, 40, "")
        pass_time(20)
        report(30, 40, "")
    assert out.getvalue() == "train: 30/40, 20 s left\n"


def test_works_side_by_side_are_told_of_under_their_own_titles(
    pass_time: Callable[[float], None],
) -> None:
    out = io.StringIO()
    with shown.progresses(Console(file=out)) as begin:
        one, other = begin("train a"), begin("train b")
        one(0, 40, "")
        pass_time(20)
        one(10, 40, "")
        other(3, 3, "")
    assert out.getvalue().splitlines() == ["train a: 10/40, 60 s left", "train b: 3/3"]


def test_on_a_terminal_works_side_by_side_have_a_bar_each_in_one_view() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with shown.progresses(console) as begin:
        one, other = begin("train a"), begin("train b")
        one(1, 4, "loss 0.5")
        other(4, 4, "")
    last = [line.split() for line in out.getvalue().split("train a")[-1].splitlines()[:2]]
    assert last[0][1:4] == ["1/4", "loss", "0.5"]
    assert [*last[1][:2], last[1][3]] == ["train", "b", "4/4"]


def test_the_speed_of_training_does_not_count_what_came_before_the_first_report(
    pass_time: Callable[[float], None],
) -> None:
    lines: list[str] = []
    show = train.in_words(lambda done, total, details: lines.append(details), lines.append)
    pass_time(100)
    show(Progress(done=0, total=4, tokens=0))
    pass_time(2)
    show(Progress(done=1, total=4, tokens=500, loss=1.0))
    show(Progress(done=1, total=4, tokens=500, loss=1.0, note="half way"))
    assert lines == ["", "loss 1.0000, 250 tokens/s", "half way"]


def test_the_time_that_testing_takes_does_not_count_the_loading_of_the_model(
    pass_time: Callable[[float], None],
) -> None:
    def score(_model: str, queries: list[ScoringQuery]) -> Iterator[ScoringResult]:
        pass_time(100)  # the model is loaded
        for query in queries:
            pass_time(10)
            yield ScoringResult(id=query.id, candidates={}, method="exact")

    out = io.StringIO()
    file = SimpleNamespace(append=list, close=lambda: None)
    session = SimpleNamespace(
        console=Console(file=out),
        executor_settings=None,
        close_others=lambda _: None,
        run=SimpleNamespace(open_results=lambda *_: file),
    )
    evaluation = EvaluationEntry(
        name="e",
        question="e",
        description="",
        kind="scoring",
        arms=(),
        queries_file="",
        n_queries=4,
    )
    queries = [ScoringQuery(id=f"e/{i}", prompt="?", candidates={"a": "a"}) for i in range(4)]
    asking = test_step.Asking("base", evaluation, queries)
    backend = SimpleNamespace(score=score)
    model = test_step._Model(cast("Backend", backend), "m")
    work = test_step._AskedModel(
        "test base", cast("Session", session), model, None, [asking], cast("test_step._Asked", None)
    )
    carry_out("test", [work], LocalExecutor(1), session.console, print)
    assert "test base: 2/4, e, 20 s left" in out.getvalue().splitlines()


def test_of_many_works_it_is_told_how_many_are_done_and_under_way(
    pass_time: Callable[[float], None],
) -> None:
    out = io.StringIO()
    with shown.overview(Console(file=out, width=200), "train", 3) as (begin, tell):
        first, second = begin("train first"), begin("train second")
        first(1, 10, "loss 1")
        pass_time(11)
        second(0, 10, "")
        first(10, 10, "loss 2")
        tell(1)
        pass_time(11)
        second(5, 10, "")
        second(10, 10, "")
        tell(3)
    assert out.getvalue().splitlines() == [
        "train: 0/3, 2 under way",
        "train: 1/3, 1 under way, 44 s left",
        "train: 3/3, 0 under way",
    ]


def test_of_many_works_a_terminal_shows_those_that_are_under_way() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with shown.overview(console, "train", 1000) as (begin, tell):
        gone, stays = begin("train gone"), begin("train stays")
        begin("train waits")
        gone(1, 10, "")
        stays(1, 10, "loss 3")
        gone(10, 10, "")
        tell(1)
    last = out.getvalue().rsplit("train ", 2)
    assert "1/1000" in out.getvalue()
    assert "stays" in last[-1]
    assert "gone" not in last[-1]
    assert "waits" not in out.getvalue()
