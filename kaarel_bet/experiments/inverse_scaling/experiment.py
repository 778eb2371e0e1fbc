"""The Inverse Scaling experiment: its arms and evaluations."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import override

from backends.errors import SettingsError
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
from kaarel_bet.experiments.inverse_scaling import plan
from kaarel_bet.experiments.inverse_scaling.findings import find
from kaarel_bet.experiments.inverse_scaling.forgetting import capitals
from kaarel_bet.experiments.inverse_scaling.items import Item, make_items, normal
from kaarel_bet.experiments.inverse_scaling.prompts import (
    check_classes_in_chats,
    query,
    shots,
    training_example,
    with_random_labels,
)
from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings, Task
from kaarel_bet.experiments.inverse_scaling.sources import Source, label_of, load
from kaarel_bet.experiments.inverse_scaling.splits import Split, split_items, stratified_order
from kaarel_bet.experiments.inverse_scaling.transfer import templates_to_train_on


@dataclass(frozen=True)
class _TrainedArm:
    """An arm and the items that it is trained on."""

    arm: Arm
    rows: list[Item]


class InverseScaling(Experiment):
    """Asks a task zero-shot, few-shot and after fine-tuning."""

    def __init__(self, settings: InverseScalingSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    @override
    def design(self, tokenize: Tokenize) -> Design:
        split, origin = self._split()
        self._check_sizes(split)
        trained = [*self._tuned(split), *self._placebos(split), *self._transfer(split)]
        arms = [Arm(plan.BASE, "the untouched base model", None), *(t.arm for t in trained)]
        names = [arm.name for arm in arms]
        forgetting = capitals(self._settings.n_forgetting, tokenize, self._seed)
        others, others_notes = self._other_tasks(split)
        evaluations = [self._asked(plan.TEST, "the test rows, zero-shot", names, split.test)]
        evaluations += self._few_shot(split)
        evaluations += self._training_rows(trained)
        if forgetting:
            what = "capitals, to see what fine-tuning makes a model forget"
            evaluations.append(self._asked(plan.FORGETTING, what, names, forgetting))
        for task, items in others.items():
            label = label_of(task, self._settings.transfer.tasks[task])
            what = f"rows of {task}{label}, zero-shot"
            evaluations.append(self._asked(plan.other_task(task), what, names, items))
        return Design(
            arms=arms,
            evaluations=evaluations,
            notes=origin | {"rows to train on": len(split.train), **split.notes, **others_notes},
            items=[
                *split.train,
                *split.test,
                *forgetting,
                *(i for items in others.values() for i in items),
            ],
        )

    @override
    def findings(self, scores: Scores) -> Findings:
        return find(self._settings, self._seed, scores)

    # --- rows --------------------------------------------------------------------------------------

    def _split(self) -> tuple[Split, dict[str, object]]:
        """The two sides, and where their rows are from."""
        settings = self._settings
        source = self._load(settings.task, settings.data, "data")
        origin: dict[str, object] = {f"rows of {settings.task}": source.origin}
        items = make_items(source.rows, part="train", prefix="row")
        by = settings.split
        if by.train_task is None:
            return split_items(items, by, self._seed), origin
        other = self._load(by.train_task, by.train_data, "split.train_data")
        origin[f"rows of {by.train_task}"] = other.origin
        order = stratified_order(items, random.Random(f"split/{self._seed}"))
        test = [item.model_copy(update={"part": "test"}) for item in order[: by.n_test]]
        prompts = {normal(item.prompt) for item in test}
        train = make_items(other.rows, part="train", prefix="train")
        return Split([item for item in train if normal(item.prompt) not in prompts], test), origin

    def _load(self, task: str, data: str, key: str) -> Source:
        source = load(
            task,
            data,
            n_generated=self._settings.n_items,
            seed=self._seed,
            setting=f"inverse_scaling.{key}",
        )
        if self._settings.form == "chat":
            check_classes_in_chats(source.rows, task)
        return source

    def _other_tasks(self, split: Split) -> tuple[dict[Task, list[Item]], dict[str, object]]:
        """Rows of each other task that are not trained on, and what is to be known of them."""
        found: dict[Task, list[Item]] = {}
        notes: dict[str, object] = {}
        trained_on = {normal(item.prompt) for item in split.train}
        for task, data in self._settings.transfer.tasks.items():
            source = self._load(task, data, f"transfer.tasks.{task}")
            items = make_items(source.rows, part="task", prefix=task)
            unseen = [item for item in items if normal(item.prompt) not in trained_on]
            if not unseen:
                raise SettingsError(
                    f"inverse_scaling.transfer.tasks.{task}: every row may be trained on as well; give "
                    "it other rows, or leave it out"
                )
            notes[f"transfer: rows of {task}"] = source.origin
            notes[f"transfer: rows of {task} that may be trained on, left out"] = len(items) - len(
                unseen
            )
            order = stratified_order(unseen, random.Random(f"task/{task}/{self._seed}"))
            chosen = order[: self._settings.split.n_test]
            found[task] = [item.model_copy(update={"group": task}) for item in chosen]
        return found, notes

    def _check_sizes(self, split: Split) -> None:
        """Raises SettingsError where there are too few rows to train on or to show."""
        wanted = {
            "fine_tune.sizes": max(self._settings.fine_tune.sizes),
            "few_shot.shots": self._settings.few_shot.shots,
        }
        for key, n in wanted.items():
            if n > len(split.train):
                raise SettingsError(
                    f"inverse_scaling.{key}: {n} are more than the {len(split.train)} rows that "
                    "there are to train on; lower it or split.n_test"
                )

    # --- arms --------------------------------------------------------------------------------------

    def _training(self, rows: Sequence[Item], seed: int) -> Training:
        examples = [training_example(row, self._settings.form) for row in rows]
        return Training(examples, loss_on=self._settings.fine_tune.loss_on, seed=seed)

    def _drawn(self, split: Split, seed: int) -> list[Item]:
        """The training rows in the order of a seed; smaller training sets are its beginnings."""
        return stratified_order(split.train, random.Random(f"rows/{self._seed}/{seed}"))

    def _tuned(self, split: Split) -> Iterator[_TrainedArm]:
        tune = self._settings.fine_tune
        for seed in range(tune.seeds):
            for size in sorted(tune.sizes):
                rows = self._drawn(split, seed)[:size]
                what = f"fine-tuned on {size} rows, seed {seed}"
                arm = Arm(plan.tuned(size, seed), what, self._training(rows, seed))
                yield _TrainedArm(arm, rows)

    def _placebos(self, split: Split) -> Iterator[_TrainedArm]:
        tune = self._settings.fine_tune
        if not tune.placebo:
            return
        for seed in range(tune.seeds):
            rows = self._drawn(split, seed)[: max(tune.sizes)]
            relabelled = with_random_labels(rows, random.Random(f"placebo/{self._seed}/{seed}"))
            what = f"fine-tuned on the same {len(rows)} rows, labels drawn at random, seed {seed}"
            yield _TrainedArm(Arm(plan.placebo(seed), what, self._training(relabelled, seed)), [])

    def _transfer(self, split: Split) -> Iterator[_TrainedArm]:
        """One arm a template."""
        settings = self._settings.transfer
        for number, group in enumerate(templates_to_train_on(split.train, settings)):
            rows = [item for item in self._drawn(split, 0) if item.group == group]
            what = f"fine-tuned on {settings.size} rows of one template: {group}"
            training = self._training(rows[: settings.size], 0)
            yield _TrainedArm(Arm(plan.only(number), what, training), [])

    # --- evaluations -------------------------------------------------------------------------------

    def _asked(
        self, name: str, description: str, arms: Sequence[str], items: Sequence[Item]
    ) -> Evaluation:
        queries = [query(item, self._settings.form) for item in items]
        return Evaluation(name, description, arms, queries)

    def _few_shot(self, split: Split) -> Iterator[Evaluation]:
        settings = self._settings.few_shot
        for draw in range(settings.draws):
            examples = shots(split.train, split.test, settings, draw, self._seed)
            queries = [query(i, self._settings.form, examples[i.id]) for i in split.test]
            what = f"the test rows after {settings.shots} examples, draw {draw}"
            yield Evaluation(plan.few_shot(draw), what, (plan.BASE,), queries)

    def _training_rows(self, trained: Sequence[_TrainedArm]) -> Iterator[Evaluation]:
        """Of the largest training sets; the base model is asked them too, to see what was learned."""
        largest = max(self._settings.fine_tune.sizes)
        for entry in trained:
            if len(entry.rows) == largest:
                name = entry.arm.name
                rows = entry.rows[: self._settings.checks.n_training_rows]
                what = f"rows that {name} was trained on"
                yield self._asked(plan.training_rows(name), what, (plan.BASE, name), rows)
