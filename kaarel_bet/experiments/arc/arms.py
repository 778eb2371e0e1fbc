"""The arms: what each is fine-tuned on, and what it is asked."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.data import GenerationQuery, ScoringQuery, SearchQuery, TrainingExample
from backends.errors import SettingsError
from kaarel_bet.experiments.arc.augmentation import (
    View,
    exchanged,
    recoloured,
    shuffled,
    symmetric,
    views,
)
from kaarel_bet.experiments.arc.grids import ArcItem, ArcTask, SetName
from kaarel_bet.experiments.arc.prompts import (
    Lengths,
    answer,
    leave_one_out,
    messages,
    training_examples,
)
from kaarel_bet.experiments.arc.settings import ArcBet, AugmentationSettings
from kaarel_bet.experiments.interface import BASE, Arm, Evaluation, Row, Training, of_replicate

PLAIN = "train_plain"
AUGMENTED = "train_augmented"
OTHER = "other_augmented"
COUNTING = "counting"
CONTINUED = "counting_then_train"
TEST_TIME = "test_time"

IN_DEPTH = (AUGMENTED, TEST_TIME)
"""The arms that are also asked test tasks under augmentation, and searched."""

ANSWER = "answer"
"""The label of the right answer where its loss is asked for."""

_DESCRIPTIONS = {
    BASE: "the untouched base model",
    PLAIN: "fine-tuned on the training tasks as they are",
    AUGMENTED: "fine-tuned on as many augmented variants of the training tasks",
    OTHER: "fine-tuned on augmented variants of the other set",
    COUNTING: "fine-tuned on questions that need counting",
    CONTINUED: f"the same training as {AUGMENTED}, after counting",
    TEST_TIME: f"{AUGMENTED}, fine-tuned on the test tasks' own examples",
}


def arms_asked(part: SetName, bet: ArcBet) -> tuple[str, ...]:
    """The arms that are asked the tasks of a set."""
    everywhere = (BASE, PLAIN, AUGMENTED, OTHER, CONTINUED)
    has_test_time = part == "test" and bet.test_time.adapters != "none"
    return (*everywhere, TEST_TIME) if has_test_time else everywhere


Model = tuple[str, int]
"""An arm, and which of its trainings (from 1). There is one base model."""


def models(arms: Iterable[str], bet: ArcBet) -> list[Model]:
    """Every training of these arms."""
    n = bet.replicate.training
    return [(arm, number + 1) for arm in arms for number in range(1 if arm == BASE else n)]


def make_arms(
    made: "TrainingSets",
    sets: Mapping[SetName, Sequence[ArcTask]],
    questions: Sequence[TrainingExample],
    bet: ArcBet,
) -> Iterator[Arm]:
    """All arms, each after the one that it goes on from; `questions` are those that need counting.

    Raises:
        SettingsError: there is nothing to train on, or two models would have one name.
    """
    known: set[str] = set()
    for arm in itertools.chain(
        [Arm(BASE, _DESCRIPTIONS[BASE], None, BASE)],
        *(_trained(made, sets, questions, bet, n + 1) for n in range(bet.replicate.training)),
    ):
        if arm.name in known:
            raise SettingsError(
                f"arc.sets.test: two models would be called {arm.name}; a task's name can't be another's "
                "with the number of a training after it: rename its file"
            )
        known.add(arm.name)
        yield arm


def _trained(
    made: "TrainingSets",
    sets: Mapping[SetName, Sequence[ArcTask]],
    questions: Sequence[TrainingExample],
    bet: ArcBet,
    replicate: int,
) -> Iterator[Arm]:
    """One training of every arm, with variants, adapters and orders of its own.

    At test time there is one model for all test tasks or for each, of those with something to train on:
    their own examples, one at a time taken for the test (Akyürek et al. 2024, arXiv:2411.07279), never
    their test inputs.
    """

    def named(model: str) -> str:
        return of_replicate(model, replicate)

    validation, others = made.once(sets["other"]), made.once(sets["train"])
    augmented = made.augmented(named(AUGMENTED), sets["train"])
    other = made.augmented(named(OTHER), sets["other"])
    if not (augmented and other):
        raise SettingsError("arc.max_tokens: every training example is longer; raise it")
    plain = made.plain(named(PLAIN), sets["train"], augmented)
    seed = replicate - 1
    trainings = {
        PLAIN: Training(plain, validation, seed=seed),
        AUGMENTED: Training(augmented, validation, seed=seed),
        OTHER: Training(other, others, seed=seed),
        COUNTING: Training(questions, seed=seed),
        CONTINUED: Training(augmented, validation, starts_from=named(COUNTING), seed=seed),
    }
    for arm, training in trainings.items():
        yield Arm(named(arm), _DESCRIPTIONS[arm], training, arm, replicate)
    test_time = bet.test_time
    groups: dict[str, dict[str, Sequence[ArcTask]]] = {
        "none": {},
        "one": {TEST_TIME: sets["test"]},
        "per_task": {_test_time_model(task.id): [task] for task in sets["test"]},
    }
    for model, tasks in groups[test_time.adapters].items():
        left = [form for task in tasks for form in leave_one_out(task)]
        # Exchanging pairs would leave out another one than is to be.
        examples = made.variants(named(model), left, test_time.variants, exchange=False)
        if examples:
            training = Training(examples, starts_from=named(AUGMENTED), seed=seed)
            yield Arm(named(model), _DESCRIPTIONS[TEST_TIME], training, TEST_TIME, replicate)


def _test_time_model(task: str) -> str:
    """The model that was trained for one test task alone."""
    return f"{TEST_TIME}-{task}"


@dataclass
class TrainingSets:
    """Makes the arms' training examples, and counts what went into each."""

    lengths: Lengths
    augmentation: AugmentationSettings
    seed: int
    notes: dict[str, object] = field(default_factory=dict[str, object])

    def augmented(self, model: str, tasks: Sequence[ArcTask]) -> list[TrainingExample]:
        """Variants of each task, as the settings have them."""
        by = self.augmentation
        return self.variants(model, tasks, by.variants, exchange=by.exchange)

    def once(self, tasks: Sequence[ArcTask]) -> list[TrainingExample]:
        """The tasks as they are."""
        return [e for task in tasks for e in training_examples(task, self.lengths.encoding)]

    def plain(
        self, model: str, tasks: Sequence[ArcTask], like: Sequence[TrainingExample]
    ) -> list[TrainingExample]:
        """The tasks as they are, over and over until there are as many examples as in `like`.

        So arms with and without augmentation see the same number of examples.
        """
        once = self.once(tasks)
        times = max(1, round(len(like) / len(once)))
        self.notes[f"training set of {model}"] = {
            "tasks": len(tasks),
            "each example, times": times,
            "examples": times * len(once),
        }
        return once * times

    def variants(
        self, model: str, tasks: Sequence[ArcTask], n: int | None, *, exchange: bool
    ) -> list[TrainingExample]:
        """So many variants of each task, drawn at random, or all that exchange and symmetry give.

        Where there are fewer than are to be drawn, they come again, with other colours and orders.
        """
        by = self.augmentation
        # Models' names had dashes when the first runs were made, whose training sets these are.
        rng = random.Random(f"augmentation/{model.replace('_', '-')}/{self.seed}")
        counts: Counter[str] = Counter(tasks=len(tasks))
        examples = []
        for task in tasks:
            turned = symmetric([task]) if by.symmetries else [task]
            forms = exchanged(turned) if exchange else turned
            counts["by symmetry"] += len(turned)
            counts["by exchange as well"] += len(forms)
            for variant in forms if n is None else _draw(forms, n, rng):
                if by.colours:
                    variant = recoloured(variant, rng, keep_background=by.keep_background)
                if by.order:
                    variant = shuffled(variant, rng)
                counts["variants taken"] += 1
                if self.lengths.fits(variant):
                    examples += training_examples(variant, self.lengths.encoding)
                else:
                    counts["of these too long, left out"] += 1
        self.notes[f"training set of {model}"] = dict(counts) | {"examples": len(examples)}
        return examples


def _draw(forms: Sequence[ArcTask], n: int, rng: random.Random) -> list[ArcTask]:
    """As evenly as can be: none a second time before all were drawn once."""
    drawn: list[ArcTask] = []
    while len(drawn) < n:
        drawn += rng.sample(forms, min(len(forms), n - len(drawn)))
    return drawn


# --- what they are asked ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Asker:
    """Makes evaluations. `max_tokens` is how long an answer may get."""

    bet: ArcBet
    seed: int
    max_tokens: int

    def of_tasks(
        self, items: Mapping[SetName, Sequence[ArcItem]], arms: Sequence[Arm]
    ) -> Iterator[Evaluation]:
        """All that is asked of the sets; and, of models trained for a single test task, of that task."""
        alone = self.bet.test_time.adapters == "per_task"
        for part, members in items.items():
            asked = {*arms_asked(part, self.bet)} - ({TEST_TIME} if alone else set())
            yield from self._of_items(part, members, [arm for arm in arms if arm.arm in asked])
        by_name = {arm.name: arm for arm in arms}
        for task, own in itertools.groupby(items["test"] if alone else (), lambda i: i.task.id):
            names = [
                of_replicate(_test_time_model(task), n) for _, n in models([TEST_TIME], self.bet)
            ]
            trained = [by_name[name] for name in names if name in by_name]
            if trained:
                yield from self._of_items("test", list(own), trained, f"-{task}")

    def counting(
        self, examples: Sequence[TrainingExample], arms: Sequence[Arm]
    ) -> tuple[Evaluation, list[Row]]:
        """The first question of each chat, and rows with the answers."""
        queries, rows = [], []
        for number, example in enumerate(examples):
            assert example.messages is not None
            system, asked, right = example.messages[:3]
            row = {"id": f"counting/{number}", "answer": right.content, "question": asked.content}
            rows.append(row)
            chat = (system, asked)
            queries.append(GenerationQuery(id=row["id"], messages=chat, max_tokens=self.max_tokens))
        what = "questions that need counting, the first of each grid"
        asked = [arm.name for arm in arms if arm.arm in (BASE, COUNTING)]
        return Evaluation("counting", "counting", what, asked, queries), rows

    def _of_items(
        self, part: SetName, items: Sequence[ArcItem], arms: Sequence[Arm], suffix: str = ""
    ) -> Iterator[Evaluation]:
        """Everything that models are asked about items of a set.

        `suffix` tells their evaluations from those of the whole set.
        """
        by, limit = self.bet.prediction, self.max_tokens
        everyone = [arm.name for arm in arms]
        in_depth = [arm.name for arm in arms if part == "test" and arm.arm in IN_DEPTH]
        shallow = [name for name in everyone if name not in in_depth]
        n = by.augmentations if in_depth else 1
        as_it_is = [self._prompt(item) for item in items]
        in_views = [
            self._prompt(view)
            for item in items
            for view in views(item, n, self.bet.augmentation, self.seed)
        ]
        greedy = [GenerationQuery(**prompt, max_tokens=limit) for prompt in in_views]

        def ask(way: str, models: Sequence[str], what: str, queries: Sequence[Any]) -> Evaluation:
            name, what = f"{way}.{part}", f"{part}{suffix} tasks, {what}"
            return Evaluation(f"{name}{suffix}", name, what, models, queries)

        # In depth, the first view's answer is the greedy one.
        if shallow:
            yield ask("greedy", shallow, "answered greedily", greedy[::n])
        sampling = {"temperature": by.temperature, "n_samples": by.n_samples, "seed": self.seed}
        sampled = [GenerationQuery(**p, max_tokens=limit, **sampling) for p in as_it_is]
        what = f"{by.n_samples} answers each at temperature {by.temperature:g}"
        yield ask("samples", everyone, what, sampled)
        rights = [answer(item.task, item.index, self.bet.encoding) for item in items]
        scored = [
            ScoringQuery(**prompt, candidates={ANSWER: right})
            for prompt, right in zip(as_it_is, rights, strict=True)
        ]
        yield ask("loss", everyone, "how likely the right answer is", scored)
        if in_depth:
            yield ask("augmented", in_depth, f"answered greedily in {n} views", greedy)
        if in_depth and by.search is not None:
            found = [
                SearchQuery(**prompt, max_tokens=limit, min_probability=by.search)
                for prompt in in_views
            ]
            what = f"every answer of a probability of at least {by.search:g} in each view"
            yield ask("search", in_depth, what, found)

    def _prompt(self, asked: ArcItem | View) -> dict[str, Any]:
        """What every query about it has."""
        chat = messages(asked.task, asked.index, self.bet.encoding)
        return {"id": asked.id, "messages": chat}
