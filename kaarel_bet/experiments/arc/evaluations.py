"""How items are asked: for answers, and for the log-probability of the right one."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.data import GenerationQuery, ScoringQuery, SearchQuery, TrainingExample
from kaarel_bet.experiments.arc.items import ArcItem, CountingItem
from kaarel_bet.experiments.arc.plan import evaluation
from kaarel_bet.experiments.arc.prompts import answer, messages
from kaarel_bet.experiments.arc.settings import ArcSettings
from kaarel_bet.experiments.arc.views import View, views
from kaarel_bet.experiments.interface import Evaluation

ANSWER = "answer"
"""The label of the right answer where its loss is asked for."""


@dataclass(frozen=True)
class Asker:
    """Makes evaluations. `max_tokens` is how long an answer may get."""

    settings: ArcSettings
    seed: int
    max_tokens: int

    def greedy(self, part: str, items: Sequence[ArcItem], arms: Sequence[str]) -> Evaluation:
        """One answer, of the likeliest tokens."""
        queries = [self._generation(view) for item in items for view in self._views_of(item, 1)]
        what = f"{part} tasks, answered greedily"
        return Evaluation(evaluation("greedy", part), what, arms, queries)

    def samples(self, part: str, items: Sequence[ArcItem], arms: Sequence[str]) -> Evaluation:
        """Several answers, drawn at the settings' temperature."""
        by = self.settings.prediction
        queries = [
            GenerationQuery(
                id=item.id,
                messages=messages(item.task, item.index, self.settings.encoding),
                max_tokens=self.max_tokens,
                temperature=by.temperature,
                n_samples=by.n_samples,
                seed=self.seed,
            )
            for item in items
        ]
        what = f"{part} tasks, {by.n_samples} answers each at temperature {by.temperature:g}"
        return Evaluation(evaluation("samples", part), what, arms, queries)

    def loss(self, part: str, items: Sequence[ArcItem], arms: Sequence[str]) -> Evaluation:
        """The log-probability of the right answer."""
        encoding = self.settings.encoding
        queries = [
            ScoringQuery(
                id=item.id,
                messages=messages(item.task, item.index, encoding),
                candidates={ANSWER: answer(item.task, item.index, encoding)},
            )
            for item in items
        ]
        what = f"{part} tasks, how likely the right answer is"
        return Evaluation(evaluation("loss", part), what, arms, queries)

    def augmented(self, part: str, items: Sequence[ArcItem], arms: Sequence[str]) -> Evaluation:
        """A greedy answer in each view."""
        queries = [self._generation(view) for view in self._views(items)]
        what = f"{part} tasks in {self.settings.prediction.augmentations} views, answered greedily"
        return Evaluation(evaluation("augmented", part), what, arms, queries)

    def search(
        self, part: str, items: Sequence[ArcItem], arms: Sequence[str], least: float
    ) -> Evaluation:
        """Every answer that is at least so likely, in each view."""
        queries = [
            SearchQuery(
                id=view.id,
                messages=messages(view.task, view.item.index, self.settings.encoding),
                max_tokens=self.max_tokens,
                min_probability=least,
            )
            for view in self._views(items)
        ]
        what = f"{part} tasks, every answer of a probability of at least {least:g} in each view"
        return Evaluation(evaluation("search", part), what, arms, queries)

    def counting(
        self, examples: Sequence[TrainingExample], arms: Sequence[str]
    ) -> tuple[Evaluation, list[CountingItem]]:
        """The first question of each chat, and the answers."""
        queries, items = [], []
        for number, example in enumerate(examples):
            chat = example.messages or ()
            first = next(i for i, message in enumerate(chat) if message.role == "assistant")
            item = CountingItem(id=f"counting/{number}", answer=chat[first].content)
            items.append(item)
            asked = chat[:first]
            queries.append(GenerationQuery(id=item.id, messages=asked, max_tokens=self.max_tokens))
        what = "questions that need counting, the first of each grid"
        return Evaluation(evaluation("counting", "questions"), what, arms, queries), items

    def _views(self, items: Sequence[ArcItem]) -> list[View]:
        n = self.settings.prediction.augmentations
        return [view for item in items for view in self._views_of(item, n)]

    def _views_of(self, item: ArcItem, n: int) -> list[View]:
        return views(item, n, self.settings.augmentation, self.seed)

    def _generation(self, view: View) -> GenerationQuery:
        return GenerationQuery(
            id=view.id,
            messages=messages(view.task, view.item.index, self.settings.encoding),
            max_tokens=self.max_tokens,
        )
