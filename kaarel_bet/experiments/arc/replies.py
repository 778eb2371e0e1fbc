"""What every model replied to every item, and the follow-up question that comes of it."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.data import LogProbability, ScoringQuery
from kaarel_bet.experiments.arc.arms import ANSWER, AUGMENTED, TEST_TIME, Model
from kaarel_bet.experiments.arc.augmentation import View, views
from kaarel_bet.experiments.arc.grids import ArcItem, Grid, SetName, Unreadable, decode, encode
from kaarel_bet.experiments.arc.prompts import messages
from kaarel_bet.experiments.arc.settings import ArcBet
from kaarel_bet.experiments.interface import Answers, Evaluation

Reply = Grid | Unreadable


@dataclass(frozen=True)
class Replies:
    """The answers and the items that they are about.

    They are told apart by arm and training: the models of single test tasks are one.
    """

    answers: Answers
    bet: ArcBet
    seed: int

    @cached_property
    def items(self) -> list[ArcItem]:
        """All test inputs of all sets."""
        return [ArcItem.model_validate(row, strict=False) for row in self.answers.tables["tasks"]]

    def of(self, part: SetName) -> list[ArcItem]:
        """The items of a set."""
        return [item for item in self.items if item.part == part]

    @cached_property
    def _results(self) -> dict[tuple[Model, str], dict[str, Any]]:
        """(model, question) -> query id -> result."""
        found: defaultdict[tuple[Model, str], dict[str, Any]] = defaultdict(dict)
        for one in self.answers.asked:
            arm, replicate, question, _ = one.run
            found[(arm, replicate), question].update((result.id, result) for result in one.results)
        # Test-time training with nothing to train on leaves the model as it is.
        for ((arm, replicate), question), known in list(found.items()):
            if arm == AUGMENTED:
                after = ((TEST_TIME, replicate), question)
                found[after] = known | found.get(after, {})
        return dict(found)

    def _of(self, model: Model, way: str, item: ArcItem) -> dict[str, Any]:
        return self._results.get((model, f"{way}.{item.part}"), {})

    @cached_property
    def _views(self) -> dict[str, list[View]]:
        """Item id -> how the item was shown."""
        n, by = self.bet.prediction.augmentations, self.bet.augmentation
        return {item.id: views(item, n, by, self.seed) for item in self.items}

    # --- grids -------------------------------------------------------------------------------------

    def greedy(self, model: Model, item: ArcItem) -> Reply:
        """The answer of the likeliest tokens: in depth, that in the first view."""
        results = self._of(model, "greedy", item) or self._of(model, "augmented", item)
        return decode(results[self._views[item.id][0].id].texts[0], self.bet.encoding)

    def samples(self, model: Model, item: ArcItem) -> list[Reply]:
        """The sampled answers."""
        texts = self._of(model, "samples", item)[item.id].texts
        return [decode(text, self.bet.encoding) for text in texts]

    def augmented(self, model: Model, item: ArcItem) -> list[Reply]:
        """The greedy answer in every view, turned back."""
        results = self._of(model, "augmented", item)
        return [self._back(view, results[view.id].texts[0]) for view in self._views[item.id]]

    def _back(self, view: View, text: str) -> Reply:
        grid = decode(text, self.bet.encoding)
        return grid if isinstance(grid, Unreadable) else view.augmentation.invert(grid)

    def candidates(self, model: Model, item: ArcItem) -> list[Grid]:
        """The different grids that a model came upon.

        In the order of votes over views, then by how often they were found by search, then as sampled.
        """
        results = self._of(model, "search", item)
        searched = [
            self._back(view, completion.text)
            for view in self._views[item.id]
            if view.id in results
            for completion in results[view.id].completions
        ]
        voted = [g for found in (self.augmented(model, item), searched) for g, _ in vote(found)]
        sampled = [
            reply for reply in self.samples(model, item) if not isinstance(reply, Unreadable)
        ]
        return list(dict.fromkeys([*voted, *sampled]))[: self.bet.prediction.max_candidates]

    # --- probabilities -------------------------------------------------------------------------------

    def log_probability(self, model: Model, item: ArcItem) -> tuple[LogProbability, int]:
        """Of the right answer, and how many tokens it has."""
        score = self._of(model, "loss", item)[item.id].candidates[ANSWER]
        return score.total, score.n_tokens

    def ranked(self, model: Model, item: ArcItem) -> list[Grid] | None:
        """The candidates by the sum of their log-probabilities over the views, likeliest first.

        This is the product of experts that the ARChitects select by (Franzen, Disselhoff & Hartmann
        2025, arXiv:2505.07859). Of log-probabilities that are intervals the middles count; None where
        any has no end.
        """
        totals: defaultdict[Grid, float] = defaultdict(float)
        candidates = self.candidates(model, item)
        for view in self._views[item.id] if candidates else ():
            scores = self._of(model, "experts", item)[view.id].candidates
            for number, grid in enumerate(candidates):
                known = scores[str(number)].total
                totals[grid] += (known.low + known.high) / 2
        if not all(map(math.isfinite, totals.values())):
            return None
        return sorted(totals, key=totals.__getitem__, reverse=True)

    def counted(self, model: Model) -> dict[str, bool]:
        """Whether a question that needs counting is answered right to the letter, by its id."""
        results = self._results[model, "counting"]
        return {
            row["id"]: results[row["id"]].texts[0].strip() == row["answer"]
            for row in self.answers.tables["counting"]
        }

    # --- follow-ups ----------------------------------------------------------------------------------

    def experts(self) -> Iterator[Evaluation]:
        """How likely is each candidate grid in every view of its task?

        One evaluation for every model that was asked in views and came upon any grid.
        """
        for one in self.answers.asked:
            if one.evaluation.question == "augmented.test":
                asked = {result.id for result in one.results}
                model, name = (one.arm.arm, one.arm.replicate), one.arm.name
                queries = [
                    query
                    for item in self.of("test")
                    if self._views[item.id][0].id in asked
                    for query in self._about_candidates(model, item)
                ]
                what = f"how likely the candidates of {name} are in each view"
                if queries:
                    asking = f"experts.test-{name}"
                    yield Evaluation(asking, "experts.test", what, (name,), queries)

    def _about_candidates(self, model: Model, item: ArcItem) -> Iterator[ScoringQuery]:
        encoding = self.bet.encoding
        candidates = self.candidates(model, item)
        for view in self._views[item.id] if candidates else ():
            forms = (encode(view.augmentation.apply(grid), encoding) for grid in candidates)
            yield ScoringQuery(
                id=view.id,
                messages=messages(view.task, view.index, encoding),
                candidates={str(number): form for number, form in enumerate(forms)},
            )


def vote(predictions: Sequence[Reply]) -> list[tuple[Grid, int]]:
    """The different grids with how often each was predicted, most often first.

    Ties go to the one predicted first. What could not be read has no vote.
    """
    # Counter.most_common keeps the order of first appearance among equals.
    return Counter(p for p in predictions if not isinstance(p, Unreadable)).most_common()
