"""The scores as evidence: what every arm answered to every item."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.data import LogProbability
from kaarel_bet.experiments.arc import plan
from kaarel_bet.experiments.arc.encodings import Unreadable, decode
from kaarel_bet.experiments.arc.evaluations import ANSWER
from kaarel_bet.experiments.arc.grids import Grid
from kaarel_bet.experiments.arc.items import ArcItem, CountingItem
from kaarel_bet.experiments.arc.metrics import vote
from kaarel_bet.experiments.arc.plan import Kind, SetName, kind_of, system
from kaarel_bet.experiments.arc.settings import ArcSettings
from kaarel_bet.experiments.arc.views import View, views
from kaarel_bet.experiments.interface import Scores

Reply = Grid | Unreadable

_IN_VIEWS = ("greedy", "augmented", "search", "experts")
"""Kinds whose queries are of views, not of items."""


@dataclass(frozen=True)
class Evidence:
    """The scores and the items that they are about.

    A `system` is an arm, or the arms that were each trained for a single test task.
    """

    scores: Scores
    settings: ArcSettings
    seed: int

    @cached_property
    def items(self) -> list[ArcItem]:
        """All test inputs of all sets."""
        records = [record for record in self.scores.items if record["part"] in plan.SETS]
        return [ArcItem.model_validate(record, strict=False) for record in records]

    @cached_property
    def counting(self) -> list[CountingItem]:
        """The questions that need counting."""
        records = [record for record in self.scores.items if record["part"] == "counting"]
        return [CountingItem.model_validate(record, strict=False) for record in records]

    @cached_property
    def _results(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(system, kind) -> query id -> result; the first view's answer in depth is the greedy one."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for results in (self.scores.generation, self.scores.scoring, self.scores.search):
            for arm, evaluations in results.items():
                for evaluation, answers in evaluations.items():
                    known = found.setdefault((system(arm), kind_of(evaluation)), {})
                    known.update((answer.id, answer) for answer in answers)
        first = {self.views(item)[0].id for item in self.items}
        for (name, kind), known in list(found.items()):
            if kind == "augmented":
                greedy = {key: known[key] for key in known.keys() & first}
                found.setdefault((name, "greedy"), {}).update(greedy)
        _fill_in(found)
        return found

    def of(self, part: SetName) -> list[ArcItem]:
        """The items of a set."""
        return [item for item in self.items if item.part == part]

    def systems(self, kind: Kind, part: SetName) -> list[str]:
        """Which were asked all of this set's items in this way, in the order of the arms."""
        first = [self.views(item)[0].id if kind in _IN_VIEWS else item.id for item in self.of(part)]
        return [
            name
            for (name, asked), known in self._results.items()
            if asked == kind and all(identifier in known for identifier in first)
        ]

    @cached_property
    def _views(self) -> dict[str, list[View]]:
        """Item id -> how the item was shown."""
        n, by = self.settings.prediction.augmentations, self.settings.augmentation
        return {item.id: views(item, n, by, self.seed) for item in self.items}

    def views(self, item: ArcItem) -> list[View]:
        """How the item was shown."""
        return self._views[item.id]

    def greedy(self, name: str, item: ArcItem) -> Reply:
        """The answer of the likeliest tokens."""
        result = self._results[name, "greedy"][self.views(item)[0].id]
        return decode(result.texts[0], self.settings.encoding)

    def samples(self, name: str, item: ArcItem) -> list[Reply]:
        """The sampled answers."""
        texts = self._results[name, "samples"][item.id].texts
        return [decode(text, self.settings.encoding) for text in texts]

    def log_probability(self, name: str, item: ArcItem) -> tuple[LogProbability, int]:
        """Of the right answer, and how many tokens it has."""
        score = self._results[name, "loss"][item.id].candidates[ANSWER]
        return score.total, score.n_tokens

    def augmented(self, name: str, item: ArcItem) -> list[Reply]:
        """The greedy answer in every view, turned back."""
        known = self._results[name, "augmented"]
        return [self._back(view, known[view.id].texts[0]) for view in self.views(item)]

    def searched(self, name: str, item: ArcItem) -> list[Grid]:
        """The grids found by search, turned back, those first that are found most often."""
        known = self._results.get((name, "search"), {})
        found = [
            self._back(view, completion.text)
            for view in self.views(item)
            if view.id in known
            for completion in known[view.id].completions
        ]
        return [grid for grid, _ in vote(found)]

    def _back(self, view: View, text: str) -> Reply:
        grid = decode(text, self.settings.encoding)
        return grid if isinstance(grid, Unreadable) else view.augmentation.invert(grid)

    def candidates(self, name: str, item: ArcItem) -> list[Grid]:
        """The different grids that a system came upon, in the order of votes, then as found."""
        voted = [grid for grid, _ in vote(self.augmented(name, item))]
        found = [*voted, *self.searched(name, item), *_readable(self.samples(name, item))]
        return list(dict.fromkeys(found))[: self.settings.prediction.max_candidates]

    def ranked(self, name: str, item: ArcItem) -> list[Grid]:
        """The candidates by the sum of their log-probabilities over the views, likeliest first.

        This is the product of experts that the ARChitects select by (Franzen, Disselhoff & Hartmann
        2025, arXiv:2505.07859). Of log-probabilities that are intervals the middles count.
        """
        known = self._results.get((name, "experts"), {})
        candidates = self.candidates(name, item)
        if not candidates:
            return []
        scores = [known[view.id].candidates for view in self.views(item)]
        totals = [
            sum(_middle(score[str(number)].total) for score in scores)
            for number in range(len(candidates))
        ]
        order = sorted(range(len(candidates)), key=lambda number: -totals[number])
        return [candidates[number] for number in order]

    def ranks(self, name: str, items: Sequence[ArcItem]) -> bool:
        """Whether the candidates' log-probabilities are known well enough to rank them."""
        known = self._results.get((name, "experts"), {})
        return all(
            math.isfinite(score.total.low)
            for item in items
            for view in self.views(item)
            if view.id in known
            for score in known[view.id].candidates.values()
        )

    def in_depth(self) -> Iterator[tuple[str, list[ArcItem]]]:
        """The arms (not systems) that were asked in views, and the items that each was asked."""
        by_id = {item.id: item for item in self.items}
        for arm, evaluations in self.scores.generation.items():
            for evaluation, results in evaluations.items():
                if kind_of(evaluation) == "augmented":
                    ids = dict.fromkeys(result.id.rpartition("@")[0] for result in results)
                    yield arm, [by_id[identifier] for identifier in ids]

    def counted(self, arm: str) -> float:
        """The share of questions that need counting whose answer is right to the letter."""
        known = self._results[arm, "counting"]
        right = [known[item.id].texts[0].strip() == item.answer for item in self.counting]
        return sum(right) / len(right)


def _fill_in(results: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Test-time training with nothing to train on leaves the model as it is."""
    if (plan.TEST_TIME, "loss") not in results:
        return
    for (name, kind), known in list(results.items()):
        if name == plan.AUGMENTED:
            of_test = {key: result for key, result in known.items() if key.startswith("test/")}
            results[plan.TEST_TIME, kind] = of_test | results.get((plan.TEST_TIME, kind), {})


def _readable(replies: Sequence[Reply]) -> list[Grid]:
    """Those that are grids."""
    return [reply for reply in replies if not isinstance(reply, Unreadable)]


def _middle(value: LogProbability) -> float:
    return (value.low + value.high) / 2
