"""Evaluations that depend on the answers to others, with an experiment and a backend made for it."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from typing_extensions import override

import kaarel_bet.run_dir
from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
)
from backends.errors import DataError, RunDirectoryError, UnsupportedError
from backends.interface import Backend, Capabilities, Estimate
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observation, Vocabulary
from kaarel_bet.bet.schema import BetBase
from kaarel_bet.content import Section
from kaarel_bet.experiments.interface import (
    Answers,
    Arm,
    Design,
    Evaluation,
    Experiment,
    Tokenize,
)
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.settings import load_settings
from kaarel_bet.test import test as run_test_step

BASE = Arm("base", "untouched", None, arm="base")


def asked_of_base(name: str, queries: Sequence[Any]) -> Evaluation:
    return Evaluation(name, name, "what it says", ("base",), queries)


class GuessAndJudge(Experiment):
    """Has a model guess, and then score what it guessed."""

    def __init__(
        self, names: Sequence[str] = ("Ann", "Bob", "Cid"), *, judges: bool = True
    ) -> None:
        self._names = names
        self._judges = judges
        self.was_asked = 0

    @property
    @override
    def bet(self) -> BetBase:
        raise NotImplementedError

    @override
    def vocabulary(self) -> Vocabulary:
        raise NotImplementedError

    @override
    def design(self, tokenize: Tokenize) -> Design:
        queries = [GenerationQuery(id=name, prompt=name, max_tokens=3) for name in self._names]
        return Design(arms=(BASE,), evaluations=(asked_of_base("guesses", queries),))

    @override
    def follow_ups(self, answers: Answers) -> Sequence[Evaluation]:
        self.was_asked += 1
        (guesses,) = (one.results for one in answers.asked if one.evaluation.question == "guesses")
        queries = [
            ScoringQuery(id=guess.id, prompt=guess.id, candidates={"guess": guess.texts[0]})
            for guess in guesses
        ]
        return [asked_of_base("judged", queries)] * self._judges

    @override
    def observe(self, answers: Answers) -> Iterable[Observation]:
        return ()

    @override
    def sections(self, answers: Answers, judge: Judge) -> Sequence[Section]:
        return ()


class Oracle:
    """Guesses every name in capitals; stops, as if killed, before the query `stops_at`."""

    capabilities = Capabilities(
        prompt_loss=True, exact_scores=True, starts_from=True, search=False, costs_money=False
    )
    base_model = "oracle"

    def __init__(self, stops_at: int | None = None) -> None:
        self._stops_at = stops_at
        self.asked: list[tuple[str, str]] = []
        self.n_calls = 0

    def describe(self) -> dict[str, str]:
        return {"model": "oracle"}

    def asked_as(self, model: str) -> str | None:
        return "oracle"

    def close(self) -> None:
        pass

    def tokenize(self, text: str) -> tuple[int, ...]:
        return (0,)

    def estimate(self, queries: Sequence[Query], *, model: str | None = None) -> Estimate:
        if any(isinstance(query, SearchQuery) for query in queries):
            raise UnsupportedError("can't search")
        return Estimate(tokens=10 * len(queries))

    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        for query in queries:
            self._note("score", query)
            exact = LogProbability.exact(-float(len(query.candidates["guess"])))
            score = CandidateScore(total=exact, first_token=exact, n_tokens=1)
            yield ScoringResult(id=query.id, candidates={"guess": score}, method="exact")

    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        self.n_calls += 1
        for query in queries:
            self._note("generate", query)
            yield GenerationResult(id=query.id, prompt="", texts=((query.prompt or "").upper(),))

    def _note(self, kind: str, query: Query) -> None:
        if len(self.asked) == self._stops_at:
            raise KeyboardInterrupt
        self.asked.append((kind, query.prompt or ""))


def session(experiment: Experiment, backend: Oracle, shown: io.StringIO | None = None) -> Session:
    console = Console(file=shown or io.StringIO(), width=200)
    made = Session(load_settings({"experiment": "arc"}), RunDirectory(Path("run")), console, True)
    made.__dict__ |= {"experiment": experiment, "backend": cast("Backend", backend)}
    return made


def step(experiment: Experiment, backend: Oracle | None = None) -> Oracle:
    """Runs the test step, as a process of its own would; returns who was asked."""
    backend = backend or Oracle()
    run_test_step(session(experiment, backend))
    return backend


class GuessTwice(GuessAndJudge):
    """Two evaluations whose queries have the same ids, and no others."""

    @override
    def design(self, tokenize: Tokenize) -> Design:
        again = [GenerationQuery(id=n, prompt=f"{n} again", max_tokens=3) for n in self._names]
        design = super().design(tokenize)
        twice = asked_of_base("twice", again)
        return Design(arms=design.arms, evaluations=(*design.evaluations, twice))


GUESSES = [("generate", name) for name in ("Ann", "Bob", "Cid")]
JUDGED = [("score", name) for name in ("Ann", "Bob", "Cid")]


def test_follow_ups_are_asked_once_the_answers_that_they_depend_on_are_there() -> None:
    assert step(GuessAndJudge()).asked == GUESSES + JUDGED
    run = RunDirectory(Path("run"))
    assert [(e.name, e.kind) for e in run.evaluations()] == [
        ("guesses", "generation"),
        ("judged", "scoring"),
    ]
    assert [query.candidates for query in run.queries(run.evaluations()[1])] == [
        {"guess": "ANN"},
        {"guess": "BOB"},
        {"guess": "CID"},
    ]
    guesses, judged = run.answers().asked
    assert [r.texts for r in guesses.results] == [("ANN",), ("BOB",), ("CID",)]
    assert [r.candidates["guess"].total.high for r in judged.results] == [-3.0] * 3
    assert (judged.arm.arm, judged.evaluation.question) == ("base", "judged")
    assert run.data_files().keys() == {
        "data/queries-guesses.jsonl",
        "data/queries-judged.jsonl",
    }


def test_all_queries_of_a_kind_are_asked_in_one_call_and_kept_apart() -> None:
    assert step(GuessTwice(judges=False)).n_calls == 1
    found = {
        one.evaluation.name: [(r.id, r.texts) for r in one.results]
        for one in RunDirectory(Path("run")).answers().asked
    }
    assert found == {
        "guesses": [("Ann", ("ANN",)), ("Bob", ("BOB",)), ("Cid", ("CID",))],
        "twice": [("Ann", ("ANN AGAIN",)), ("Bob", ("BOB AGAIN",)), ("Cid", ("CID AGAIN",))],
    }


@pytest.mark.parametrize("stops_at", [1, 4])
def test_stopped_between_evaluations_of_a_kind_the_rest_alone_is_asked(stops_at: int) -> None:
    experiment = GuessTwice(judges=False)
    with pytest.raises(KeyboardInterrupt):
        step(experiment, Oracle(stops_at=stops_at))
    everything = [*GUESSES, *((kind, f"{name} again") for kind, name in GUESSES)]
    assert step(experiment).asked == everything[stops_at:]
    run = RunDirectory(Path("run"))
    for name in ("guesses", "twice"):
        assert len((run.path / "scores" / "base" / f"{name}.jsonl").read_text().splitlines()) == 3
    assert [len(one.results) for one in run.answers().asked] == [3, 3]


def test_their_estimate_is_shown_apart() -> None:
    shown = io.StringIO()
    run_test_step(session(GuessAndJudge(("Ann", "Bob")), Oracle(), shown))
    lines = [line for line in shown.getvalue().splitlines() if "queries to" in line]
    assert lines == [
        "test: 2 queries to 1 models: 20 tokens (model oracle)",
        "test, following up: 2 queries to 1 models: 20 tokens (model oracle)",
    ]


@pytest.mark.parametrize("judges", [True, False])
def test_a_finished_run_is_left_alone(*, judges: bool) -> None:
    experiment = GuessAndJudge(judges=judges)
    step(experiment)
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    assert step(experiment).asked == []
    assert experiment.was_asked == 1
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def test_an_experiment_may_have_none() -> None:
    assert step(GuessAndJudge(judges=False)).asked == GUESSES
    assert [e.name for e in RunDirectory(Path("run")).evaluations()] == ["guesses"]


def test_nothing_follows_from_answers_that_are_not_complete() -> None:
    experiment = GuessAndJudge()
    with pytest.raises(KeyboardInterrupt):
        step(experiment, Oracle(stops_at=2))
    run = RunDirectory(Path("run"))
    assert not run.has_follow_ups(1)
    assert [e.name for e in run.evaluations()] == ["guesses"]
    assert step(experiment).asked == GUESSES[2:] + JUDGED
    assert experiment.was_asked == 1


def test_follow_ups_that_were_stopped_go_on_with_what_is_left() -> None:
    experiment = GuessAndJudge()
    with pytest.raises(KeyboardInterrupt):
        step(experiment, Oracle(stops_at=4))
    written = Path("run/data/follow_ups.json").read_bytes()
    assert step(experiment).asked == JUDGED[1:]
    assert experiment.was_asked == 1
    assert Path("run/data/follow_ups.json").read_bytes() == written


def failing_at(name: str) -> Callable[[Path, str], None]:
    """Writes files until one of a name is due."""
    write_text = kaarel_bet.run_dir.write_text

    def write(path: Path, text: str) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write_text(path, text)

    return write


@pytest.mark.parametrize("unwritten", ["queries-judged.jsonl", "follow_ups.json"])
def test_a_run_killed_while_they_are_written_has_none_yet(
    unwritten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kaarel_bet.run_dir, "write_text", failing_at(unwritten))
        with pytest.raises(KeyboardInterrupt):
            step(GuessAndJudge())
    run = RunDirectory(Path("run"))
    assert not run.has_follow_ups(1)
    assert [one.evaluation.name for one in run.answers().asked] == ["guesses"]
    assert step(GuessAndJudge()).asked == JUDGED


def test_changed_follow_ups_are_refused() -> None:
    step(GuessAndJudge())
    file = Path("run/data/queries-judged.jsonl")
    file.write_text(file.read_text(encoding="utf-8").replace("ANN", "EVE"), encoding="utf-8")
    with pytest.raises(DataError, match=r"queries-judged\.jsonl: changed since it was generated"):
        step(GuessAndJudge())


def test_a_broken_list_of_follow_ups_is_named() -> None:
    step(GuessAndJudge())
    file = Path("run/data/follow_ups.json")
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"more": 1}), encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"data/follow_ups\.json: more"):
        step(GuessAndJudge())


class Searches(GuessAndJudge):
    """Asks for what not every backend can."""

    @override
    def design(self, tokenize: Tokenize) -> Design:
        queries = [SearchQuery(id="Ann", prompt="Ann", max_tokens=3, min_probability=0.1)]
        return Design(arms=(BASE,), evaluations=(asked_of_base("found", queries),))


def test_a_search_that_the_backend_cannot_do_is_refused_before_anything_is_written() -> None:
    with pytest.raises(UnsupportedError, match="can't search"):
        step(Searches())
    assert not Path("run").exists()
