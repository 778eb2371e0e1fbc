"""The ARC experiment: its arms and evaluations."""

from collections.abc import Iterator, Sequence

from typing_extensions import override

from backends.data import TrainingExample
from backends.errors import SettingsError
from kaarel_bet.experiments.arc import plan
from kaarel_bet.experiments.arc.encodings import cells_without_token
from kaarel_bet.experiments.arc.evaluations import Asker
from kaarel_bet.experiments.arc.evidence import Evidence
from kaarel_bet.experiments.arc.experts import experts
from kaarel_bet.experiments.arc.findings import find
from kaarel_bet.experiments.arc.grids import ArcTask
from kaarel_bet.experiments.arc.items import ArcItem, arc_items
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.parts import Part, parts
from kaarel_bet.experiments.arc.plan import SetName
from kaarel_bet.experiments.arc.questions import draw_questions
from kaarel_bet.experiments.arc.sets import draw_sets
from kaarel_bet.experiments.arc.settings import ArcSettings
from kaarel_bet.experiments.arc.training_sets import TrainingSets
from kaarel_bet.experiments.interface import (
    Arm,
    Design,
    Evaluation,
    Experiment,
    Findings,
    Scores,
    Tokenize,
    Training,
)

_SPARE_TOKENS = 8
"""For the end of an answer and for what a model may say around it."""

Sets = dict[SetName, list[ArcTask]]


class Arc(Experiment):
    """Fine-tunes on grids and asks for grids."""

    def __init__(self, settings: ArcSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    @override
    def design(self, tokenize: Tokenize) -> Design:
        settings = self._settings
        lengths = Lengths(tokenize, settings.encoding, settings.max_tokens)
        sets, notes = draw_sets(settings.sets, lengths, self._seed)
        made = TrainingSets(settings.encoding, lengths, settings.augmentation, self._seed)
        learned, asked = draw_questions(settings.counting, lengths, self._seed)
        arms = [
            Arm(plan.BASE, "the untouched base model", None),
            *self._trained(sets, made, learned),
        ]
        items: dict[SetName, list[ArcItem]] = {
            name: arc_items(tasks, name) for name, tasks in sets.items()
        }
        asker = Asker(settings, self._seed, _longest(sets, lengths))
        counting, questions = asker.counting(asked, (plan.BASE, plan.COUNTING))
        cells = cells_without_token(tokenize, settings.encoding)
        notes["cells of sample grids that are not one token"] = cells
        return Design(
            arms=arms,
            evaluations=[*self._asked(asker, parts(items, [arm.name for arm in arms])), counting],
            notes=notes | made.notes,
            items=[*(item for part in items.values() for item in part), *questions],
        )

    @override
    def follow_ups(self, scores: Scores) -> Sequence[Evaluation]:
        """The candidates of every arm asked in depth, to be scored in every view (product of experts)."""
        return experts(Evidence(scores, self._settings, self._seed))

    @override
    def findings(self, scores: Scores) -> Findings:
        return find(Evidence(scores, self._settings, self._seed))

    # --- arms --------------------------------------------------------------------------------------

    def _trained(
        self, sets: Sets, made: TrainingSets, questions: Sequence[TrainingExample]
    ) -> Iterator[Arm]:
        variants = self._settings.augmentation.variants
        validation = made.once(sets["other"])
        examples = made.augmented(plan.AUGMENTED, sets["train"], variants)
        others = made.augmented(plan.OTHER, sets["other"], variants)
        if not (examples and others):
            raise SettingsError("arc.max_tokens: every training example is longer; raise it")
        plain = made.plain(plan.PLAIN, sets["train"], examples)
        yield Arm(
            plan.PLAIN,
            "fine-tuned on the training tasks as they are",
            Training(plain, validation),
        )
        yield Arm(
            plan.AUGMENTED,
            "fine-tuned on as many augmented variants of the training tasks",
            Training(examples, validation),
        )
        yield Arm(
            plan.OTHER,
            "fine-tuned on augmented variants of the other set",
            Training(others, made.once(sets["train"])),
        )
        yield from self._counting(questions, examples, validation)
        yield from self._test_time(sets["test"], made)

    def _counting(
        self,
        questions: Sequence[TrainingExample],
        examples: Sequence[TrainingExample],
        validation: Sequence[TrainingExample],
    ) -> Iterator[Arm]:
        yield Arm(plan.COUNTING, "fine-tuned on questions that need counting", Training(questions))
        yield Arm(
            plan.CONTINUED,
            "the same training as train-augmented, after counting",
            Training(examples, validation, starts_from=plan.COUNTING),
        )

    def _test_time(self, tasks: Sequence[ArcTask], made: TrainingSets) -> Iterator[Arm]:
        by = self._settings.test_time
        groups: dict[str, Sequence[ArcTask]] = {}
        if by.adapters == "one":
            groups = {plan.TEST_TIME: tasks}
        elif by.adapters == "per_task":
            groups = {plan.test_time(task.id): [task] for task in tasks}
        for name, members in groups.items():
            examples = made.test_time(name, members, by.variants)
            if examples:
                what = "train-augmented, fine-tuned on the test tasks' own examples"
                training = Training(examples, starts_from=plan.AUGMENTED)
                yield Arm(name, what, training)

    # --- evaluations -------------------------------------------------------------------------------

    def _asked(self, asker: Asker, parts: Sequence[Part]) -> Iterator[Evaluation]:
        least = self._settings.prediction.search
        for part in parts:
            # In depth, the first view's answer is the greedy one.
            shallow = [arm for arm in part.arms if arm not in part.in_depth]
            if shallow:
                yield asker.greedy(part.name, part.items, shallow)
            yield asker.samples(part.name, part.items, part.arms)
            yield asker.loss(part.name, part.items, part.arms)
            if part.in_depth:
                yield asker.augmented(part.name, part.items, part.in_depth)
            if part.in_depth and least is not None:
                yield asker.search(part.name, part.items, part.in_depth, least)


def _longest(sets: Sets, lengths: Lengths) -> int:
    """How long an answer may get: what the longest grid of any set takes, which gives no task away."""
    grids = {
        grid
        for tasks in sets.values()
        for task in tasks
        for pair in (*task.train, *task.test)
        for grid in (pair.input, pair.output)
    }
    return _SPARE_TOKENS + lengths.longest(grids)
