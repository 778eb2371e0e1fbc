"""Random grids and tasks for the tests of ARC's modules, and a player of models that answer them."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from backends.data import (
    CandidateScore,
    Completion,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
)
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observations
from kaarel_bet.bet.source import load_bet
from kaarel_bet.claims import Verdict
from kaarel_bet.content import Section
from kaarel_bet.documents import Document
from kaarel_bet.experiments.arc.augmentation import View, views
from kaarel_bet.experiments.arc.experiment import Arc
from kaarel_bet.experiments.arc.grids import ArcItem, ArcTask, Grid, Pair, encode
from kaarel_bet.experiments.arc.settings import ArcBet
from kaarel_bet.experiments.interface import Answers, Asked, Design, Evaluation


@st.composite
def grids(draw: st.DrawFn, max_side: int = 30) -> Grid:
    columns = draw(st.integers(1, max_side))
    row = st.lists(st.integers(0, 9), min_size=columns, max_size=columns).map(tuple)
    return tuple(draw(st.lists(row, min_size=1, max_size=max_side)))


def pairs() -> st.SearchStrategy[Pair]:
    small = grids(max_side=5)
    return st.builds(Pair, input=small, output=small)


def tasks() -> st.SearchStrategy[ArcTask]:
    return st.builds(
        ArcTask,
        id=st.just("task"),
        train=st.lists(pairs(), min_size=1, max_size=4).map(tuple),
        test=st.lists(pairs(), min_size=1, max_size=3).map(tuple),
    )


def task(n_train: int = 2, n_test: int = 1, name: str = "task") -> ArcTask:
    """A task whose pairs are told apart by the colours of their first two cells."""
    all_pairs = [
        Pair(input=((i, j, 9),), output=((i,), (j,)))
        for i, n in ((1, n_train), (2, n_test))
        for j in range(n)
    ]
    return ArcTask(id=name, train=tuple(all_pairs[:n_train]), test=tuple(all_pairs[n_train:]))


def random_task(name: str, rng: random.Random, n_train: int = 2, n_test: int = 1) -> ArcTask:
    """A task that shares nothing with others."""

    def grid() -> Grid:
        return tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(3))

    made = [Pair(input=grid(), output=grid()) for _ in range(n_train + n_test)]
    return ArcTask(id=name, train=tuple(made[:n_train]), test=tuple(made[n_train:]))


def save(directory: Path, *tasks: ArcTask) -> Path:
    """Writes the tasks as files in the official format."""
    directory.mkdir(exist_ok=True)
    for task in tasks:
        (directory / f"{task.id}.json").write_text(task.model_dump_json(exclude={"id"}))
    return directory


# --- experiments ------------------------------------------------------------------------------------

Right = Callable[[str, ArcItem], float]
"""How likely an arm is to answer an item right; fractions are drawn."""

Loss = Callable[[str, ArcItem], float | tuple[float, float]]
"""The right answer's loss in nats a token, or the ends that it lies between."""


def letters(text: str) -> tuple[int, ...]:
    """A tokenizer."""
    return tuple(ord(character) for character in text)


def experiment(directory: Path, **changes: Any) -> Arc:
    """With ten small tasks of the directory in each set."""
    sets = {name: {"source": str(directory), "n_tasks": 10} for name in ("train", "other", "test")}
    small = {
        "sets": sets,
        "max_tokens": 5000,
        "counting": {"n_examples": 3, "n_test": 4, "max_side": 4},
        "prediction": {"augmentations": 3},
    }
    bet = load_bet("arc", Document("test", {"arc": small | changes})).bet
    assert isinstance(bet, ArcBet)
    return Arc(bet, seed=0)


def items_of(design: Design) -> list[ArcItem]:
    """All test inputs."""
    return [ArcItem.model_validate(row, strict=False) for row in design.tables["tasks"]]


def other_grid(grid: Grid) -> Grid:
    """Wrong, but of the right size."""
    return tuple(tuple((cell + 1) % 10 for cell in row) for row in grid)


@dataclass
class Player:
    """Answers as models would, right as often as `right` says and with losses of `loss`.

    The answers depend on nothing but the arm, its training and the query: ARM is asked of the first
    training, ARM-2 of the second. `says` replaces all that is generated.
    """

    asked: Arc
    design: Design
    right: Right
    loss: Loss
    says: str | None = None
    counters: Sequence[str] = ("counting",)
    """Who answers questions that need counting."""

    @cached_property
    def _items(self) -> dict[str, ArcItem]:
        return {item.id: item for item in items_of(self.design)}

    @cached_property
    def _views(self) -> dict[str, View]:
        n, by = self.asked.bet.prediction.augmentations, self.asked.bet.augmentation
        return {view.id: view for i in self._items.values() for view in views(i, n, by, 0)}

    def to(self, evaluations: Sequence[Evaluation]) -> Iterator[Asked]:
        """The answers of every model that is asked."""
        for evaluation in evaluations:
            for name in evaluation.arms:
                (arm,) = (arm for arm in self.design.arms if arm.name == name)
                whose = arm.arm if arm.replicate == 1 else f"{arm.arm}-{arm.replicate}"
                results = [self._one(whose, query) for query in evaluation.queries]
                yield Asked(arm.entry(), evaluation.entry(), results)

    def _one(self, arm: str, query: Query) -> Any:
        if isinstance(query, ScoringQuery):
            return self._scored(arm, query)
        if isinstance(query, SearchQuery):
            completion = Completion(text=self._text(arm, query.id, 0), log_probability=-0.5)
            return SearchResult(id=query.id, completions=(completion,))
        assert isinstance(query, GenerationQuery)
        texts = [self._text(arm, query.id, number) for number in range(query.n_samples)]
        return GenerationResult(id=query.id, prompt="", texts=tuple(texts))

    def _text(self, arm: str, query: str, number: int) -> str:
        if self.says is not None:
            return self.says
        counting = {row["id"]: row["answer"] for row in self.design.tables["counting"]}
        if query in counting:
            return counting[query] if arm in self.counters else "I can't count."
        view = self._views.get(query) or self._views[f"{query}@0"]
        expected = view.item.expected
        drawn = random.Random(f"{arm}/{query}/{number}").random()
        right = drawn < self.right(arm, view.item)
        return encode(view.augmentation.apply(expected if right else other_grid(expected)), "rows")

    def _scored(self, arm: str, query: ScoringQuery) -> ScoringResult:
        if query.id in self._items:
            loss = self.loss(arm, self._items[query.id])
            low, high = loss if isinstance(loss, tuple) else (loss, loss)
            totals = {"answer": LogProbability(low=-10 * high, high=-10 * low)}
        else:
            view = self._views[query.id]
            expected = encode(view.augmentation.apply(view.item.expected), "rows")
            totals = {
                label: LogProbability.exact(-1.0 if text == expected else -2.0)
                for label, text in query.candidates.items()
            }
        scores = {
            label: CandidateScore(total=total, first_token=total, n_tokens=10)
            for label, total in totals.items()
        }
        return ScoringResult(id=query.id, candidates=scores, method="exact")


@dataclass(frozen=True)
class Played:
    """A whole run."""

    answers: Answers
    follow_ups: Sequence[Evaluation]
    observations: Observations
    judge: Judge
    sections: Sequence[Section]

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        return {verdict.name: verdict for verdict in self.judge.verdicts()}


def play(
    asked: Arc, right: Right, loss: Loss | None = None, says: str | None = None, **more: Any
) -> Played:
    """Asks the player everything; losses are by default of what is not right."""
    design = asked.design(letters)
    player = Player(asked, design, right, loss or (lambda arm, i: 1 - right(arm, i)), says, **more)
    tables = json.loads(json.dumps(design.tables))  # as they come back from the run's directory
    first = list(player.to(design.evaluations))
    follow_ups = asked.follow_ups(Answers(first, tables))
    answers = Answers([*first, *player.to(follow_ups)], tables)
    found = Observations(asked.observe(answers))
    judge = Judge(asked.bet, asked.vocabulary(), found, tables, 0)
    return Played(answers, follow_ups, found, judge, asked.sections(answers, judge))
