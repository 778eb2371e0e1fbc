"""The experiment: what is trained and asked, and what becomes of the answers."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.data import (
    CandidateScore,
    Completion,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
)
from backends.errors import SettingsError
from kaarel_bet.claims import Verdict
from kaarel_bet.content import Table
from kaarel_bet.experiments.arc.encodings import encode
from kaarel_bet.experiments.arc.experiment import Arc
from kaarel_bet.experiments.arc.grids import ArcTask, Grid, Pair
from kaarel_bet.experiments.arc.items import ArcItem, CountingItem
from kaarel_bet.experiments.arc.leakage import shared
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.sets import draw_sets
from kaarel_bet.experiments.arc.settings import ArcSettings, AugmentationSettings, SetsSettings
from kaarel_bet.experiments.arc.sources import load
from kaarel_bet.experiments.arc.training_sets import TrainingSets
from kaarel_bet.experiments.arc.views import View, views
from kaarel_bet.experiments.interface import Design, Evaluation, Findings, Scores
from tests.kaarel_bet.experiments.arc_tasks import random_task, save

Right = Callable[[str, ArcItem], float]
"""How likely an arm is to answer an item right; fractions are drawn."""

MEMORISED, TRANSFERS, TEST, COUNTING, AUGMENTATION = range(5)


def letters(text: str) -> tuple[int, ...]:
    return tuple(ord(character) for character in text)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A directory of thirty tasks that share nothing."""
    rng = random.Random(0)
    return save(tmp_path / "tasks", *(random_task(f"t{i:02}", rng) for i in range(30)))


def experiment(directory: Path, **changes: Any) -> Arc:  # noqa: ANN401
    sets = {name: {"source": str(directory), "n_tasks": 10} for name in ("train", "other", "test")}
    small = {
        "sets": sets,
        "max_tokens": 5000,
        "augmentation": {"variants": 2},
        "counting": {"n_examples": 3, "n_test": 4, "max_side": 4},
        "prediction": {"augmentations": 3},
    }
    return Arc(ArcSettings.model_validate(small | changes, strict=False), seed=0)


def arc_items(design: Design) -> list[ArcItem]:
    return [item for item in design.items if isinstance(item, ArcItem)]


def members(design: Design, part: str) -> list[ArcTask]:
    return [item.task for item in arc_items(design) if item.part == part]


def texts_trained_on(design: Design, arm: str) -> list[str]:
    (training,) = (a.training for a in design.arms if a.name == arm)
    assert training is not None
    return [e.model_dump_json() for e in training.examples]


# --- answers, made up ------------------------------------------------------------------------


def other_grid(grid: Grid) -> Grid:
    """Wrong, but of the right size."""
    return tuple(tuple((cell + 1) % 10 for cell in row) for row in grid)


class Answers:
    """Answers queries: right as often as `right` says, and with losses of `loss` nats a token."""

    def __init__(self, asked: Arc, design: Design, right: Right, loss: Right) -> None:
        self._right, self._loss = right, loss
        self._rng = random.Random(0)
        n = asked._settings.prediction.augmentations
        items = arc_items(design)
        self._views = {
            view.id: view
            for item in items
            for view in views(item, n, asked._settings.augmentation, 0)
        }
        self._items = {item.id: item for item in items}
        self._counting = {i.id: i for i in design.items if isinstance(i, CountingItem)}

    def to(self, evaluations: list[Evaluation], scores: Scores) -> Scores:
        """The scores, these evaluations answered as well."""
        found = {
            kind: {arm: dict(known) for arm, known in getattr(scores, kind).items()}
            for kind in ("scoring", "generation", "search")
        }
        for evaluation in evaluations:
            for arm in evaluation.arms:
                for query in evaluation.queries:
                    kind, result = self._one(arm, query)
                    by_arm = found[kind].setdefault(arm, {})
                    by_arm.setdefault(evaluation.name, []).append(result)
        return replace(scores, **found)

    def _one(self, arm: str, query: object) -> tuple[str, Any]:
        if isinstance(query, ScoringQuery):
            return "scoring", self._scored(arm, query)
        if isinstance(query, SearchQuery):
            text = self._text(arm, self._views[query.id])
            completion = Completion(text=text, log_probability=-0.5)
            return "search", SearchResult(id=query.id, completions=(completion,))
        assert isinstance(query, GenerationQuery)
        if query.id in self._counting:
            right = arm == "counting"
            texts = [self._counting[query.id].answer if right else "I can't count."]
        else:
            view = self._views.get(query.id) or self._views[f"{query.id}@0"]
            texts = [self._text(arm, view) for _ in range(query.n_samples)]
        return "generation", GenerationResult(id=query.id, prompt="", texts=tuple(texts))

    def _text(self, arm: str, view: View) -> str:
        expected = view.item.expected
        right = self._rng.random() < self._right(arm, view.item)
        return encode(view.augmentation.apply(expected if right else other_grid(expected)), "rows")

    def _scored(self, arm: str, query: ScoringQuery) -> ScoringResult:
        if query.id in self._items:
            totals = {"answer": -10 * self._loss(arm, self._items[query.id])}
        else:
            view = self._views[query.id]
            expected = encode(view.augmentation.apply(view.item.expected), "rows")
            totals = {
                label: -1.0 if text == expected else -2.0
                for label, text in query.candidates.items()
            }
        return ScoringResult(
            id=query.id,
            candidates={
                label: CandidateScore(
                    total=LogProbability.exact(total),
                    first_token=LogProbability.exact(total),
                    n_tokens=10,
                )
                for label, total in totals.items()
            },
            method="exact",
        )


def find(asked: Arc, right: Right, loss: Right | None = None) -> Findings:
    design = asked.design(letters)
    records = [json.loads(item.model_dump_json()) for item in design.items]
    answers = Answers(asked, design, right, loss or (lambda arm, item: 1 - right(arm, item)))
    scores = answers.to(list(design.evaluations), Scores({}, {}, records))
    scores = answers.to(list(asked.follow_ups(scores)), scores)
    return asked.findings(scores)


def every(findings: Findings, *begins: str) -> dict[str, str]:
    """A row of the larger table of the answers."""
    _, table = (c for c in findings.sections[0].content if isinstance(c, Table))
    (found,) = (r for r in table.rows if tuple(r[: len(begins)]) == begins)
    return dict(zip(table.columns, found, strict=True))


def verdicts(asked: Arc, right: Right, loss: Right | None = None) -> list[Verdict]:
    return list(find(asked, right, loss).verdicts)


def row(findings: Findings, section: int, *begins: str) -> dict[str, str]:
    table = next(c for c in findings.sections[section].content if isinstance(c, Table))
    (found,) = (r for r in table.rows if tuple(r[: len(begins)]) == begins)
    return dict(zip(table.columns, found, strict=True))


def understands(arm: str, item: ArcItem) -> float:
    """Training helps everywhere, and counting first helps more."""
    del item
    return {"base": 0.0, "train-plain": 0.9, "train-augmented": 0.4, "other-augmented": 1.0}.get(
        arm, 1
    )


def learns_by_heart(arm: str, item: ArcItem) -> float:
    """What was trained on, and nothing else."""
    trained = {"train": ("train-plain", "train-augmented", "counting-then-train")}
    return float(arm in trained.get(item.part, (f"{item.part}-augmented",)))


# --- sets ------------------------------------------------------------------------------------


def test_sets_of_one_source_share_no_task_and_no_pair(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    sets = [members(design, part) for part in ("train", "other", "test")]
    assert [len(part) for part in sets] == [10, 10, 10]
    assert not shared(sets[0], [*sets[1], *sets[2]])
    assert not shared(sets[1], sets[2])


def with_a_leak(tasks: Path, tmp_path: Path) -> dict[str, Any]:
    """A test set that has a task of the training set, turned and recoloured."""
    leaking = random_task("turned", random.Random(5))
    turned = [
        Pair(
            input=tuple(zip(*other_grid(p.input), strict=True)),
            output=tuple(zip(*other_grid(p.output), strict=True)),
        )
        for p in (*leaking.train, *leaking.test)
    ]
    train = save(tmp_path / "train", leaking)
    original = ArcTask(id="original", train=tuple(turned[1:]), test=(turned[0],))
    test = save(tmp_path / "test", original, random_task("fine", random.Random(6)))
    return {
        "train": {"source": str(train), "n_tasks": None},
        "other": {"source": str(tasks), "n_tasks": 3},
        "test": {"source": str(test), "n_tasks": None},
    }


def test_a_leaking_task_is_dropped_and_counted(tasks: Path, tmp_path: Path) -> None:
    design = experiment(tasks, sets=with_a_leak(tasks, tmp_path)).design(letters)
    assert [task.id for task in members(design, "test")] == ["fine"]
    assert "sharing a pair with a task taken before, passed over: 1" in str(design.notes)


def test_a_leaking_task_is_refused_where_it_must_not_be_dropped(
    tasks: Path, tmp_path: Path
) -> None:
    sets = with_a_leak(tasks, tmp_path) | {"leakage": "refuse"}
    with pytest.raises(SettingsError, match=r"arc\.sets\.leakage: tasks original and turned share"):
        experiment(tasks, sets=sets).design(letters)


def test_an_allowed_leak_is_in_the_verdict(tasks: Path, tmp_path: Path) -> None:
    sets = with_a_leak(tasks, tmp_path) | {"leakage": "allow"}
    found = verdicts(experiment(tasks, sets=sets), understands)[TEST]
    (check,) = (check for check in found.checks if check.name == "no pair both in train and test")
    assert check.detail.startswith("1 tasks of test share a pair")
    assert check.detail.endswith("allowed by the settings")


def test_what_is_too_long_is_left_out_whole_and_counted(tasks: Path, tmp_path: Path) -> None:
    save(tasks, random_task("long", random.Random(1), n_train=12))
    design = experiment(tasks, max_tokens=1200).design(letters)
    assert "passed over: 0 longer" in str(design.notes)  # the smallest come first
    sets = {name: {"source": str(tasks), "n_tasks": 10} for name in ("train", "other", "test")}
    sets["train"]["n_tasks"] = 11
    with pytest.raises(SettingsError, match=r"has 30 tasks that fit, not 31 \(1 are longer"):
        experiment(tasks, max_tokens=1200, sets=sets).design(letters)


def test_a_task_with_two_test_inputs_is_as_large_as_its_two_prompts(tmp_path: Path) -> None:
    def square(side: int) -> Pair:
        grid: Grid = ((1,) * side,) * side
        return Pair(input=grid, output=grid)

    asked_twice = ArcTask(id="a", train=(square(4),) * 2, test=(square(2), square(2)))
    asked_once = ArcTask(id="b", train=(square(5),) * 2, test=(square(2),))
    for task in (asked_twice, asked_once):
        save(tmp_path / "tasks", task)
    settings = SetsSettings.model_validate(
        {
            "train": {"source": str(tmp_path / "tasks"), "n_tasks": 1},
            "other": {"source": "arc1-training", "n_tasks": 1},
            "test": {"source": "arc1-evaluation", "n_tasks": 1},
        }
    )
    sets, _ = draw_sets(settings, Lengths(letters, "rows", 2000), 0)
    assert [task.id for task in sets["train"]] == ["b"]


def test_too_many_tasks_and_no_tasks_are_named(tasks: Path) -> None:
    with pytest.raises(SettingsError, match=r"arc\.sets\.train: .* has 0 tasks that fit"):
        experiment(tasks, max_tokens=10).design(letters)
    with pytest.raises(ValueError, match="each needs its n_tasks"):
        experiment(tasks, sets={"train": {"source": "arc1-evaluation", "n_tasks": None}})


# --- arms ------------------------------------------------------------------------------------


def test_arms_with_and_without_augmentation_see_as_many_examples(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    plain, augmented = (
        texts_trained_on(design, f"train-{kind}") for kind in ("plain", "augmented")
    )
    assert len(plain) == len(augmented) == 20
    assert len(set(plain)) == 10
    assert len(set(augmented)) == 20


def test_counting_first_changes_nothing_else(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    trainings = {arm.name: arm.training for arm in design.arms}
    first, second = trainings["counting-then-train"], trainings["train-augmented"]
    assert first is not None
    assert second is not None
    assert first.examples == second.examples
    assert first.starts_from == "counting"
    questions = [e.model_dump_json() for e in (trainings["counting"] or first).examples]
    (asked,) = (e for e in design.evaluations if e.name == "counting-questions")
    for query in asked.queries:
        assert query.messages
        assert not any(query.messages[1].model_dump_json() in text for text in questions)


@pytest.mark.parametrize("adapters", ["one", "per_task"])
def test_test_time_training_never_sees_a_test_pair(tasks: Path, adapters: str) -> None:
    asked = experiment(
        tasks,
        test_time={"adapters": adapters},
        augmentation={"variants": 1, "symmetries": False, "exchange": False, "colours": False},
    )
    design = asked.design(letters)
    arms = [arm for arm in design.arms if arm.name.startswith("test-time")]
    assert len(arms) == (1 if adapters == "one" else 10)
    for arm in arms:
        assert arm.training
        assert arm.training.starts_from == "train-augmented"
    learned = "".join(text for arm in arms for text in texts_trained_on(design, arm.name))
    for task in members(design, "test"):
        for grid in (task.test[0].input, task.test[0].output):
            assert json.dumps(encode(grid, "rows"))[1:-1] not in learned
        assert json.dumps(encode(task.train[0].output, "rows"))[1:-1] in learned


def test_counts_are_in_the_manifest(tasks: Path) -> None:
    design = experiment(tasks, augmentation={"variants": None}).design(letters)
    # Eight symmetries of the task and of its exchanges of two train pairs with one test pair.
    everything = 10 * 8 * (1 + 2)
    assert design.notes["training set of train-augmented"] == {
        "tasks": 10,
        "by symmetry": 80,
        "by exchange as well": everything,
        "variants taken": everything,
        "examples": everything,
    }


def test_arc1_training_is_counted_as_arc24_counted_it() -> None:
    nothing = Lengths(lambda text: (), "rows", 1)
    made = TrainingSets("rows", nothing, AugmentationSettings(), 0)
    made.augmented("arm", load("arc1-training", "arc.sets.train.source"), 1)
    assert made.notes["training set of arm"] == {
        "tasks": 400,
        "by symmetry": 3200,
        "by exchange as well": 14336,
        "variants taken": 400,
        "examples": 416,
    }


def test_views_vary_only_as_training_does(tasks: Path) -> None:
    by = AugmentationSettings(symmetries=False, colours=True, keep_background=True, order=False)
    (item, *_) = arc_items(experiment(tasks).design(letters))
    for view in views(item, 8, by, 0):
        assert view.augmentation.symmetry == 0
        assert view.augmentation.colours[0] == 0
        turned_back = [view.augmentation.invert(pair.input) for pair in view.task.train]
        assert turned_back == [pair.input for pair in item.task.train]


def test_a_wide_grids_answer_has_room_on_its_side_too(tmp_path: Path) -> None:
    rng = random.Random(0)

    def wide() -> Grid:
        return (tuple(rng.randrange(10) for _ in range(30)),)

    made = [
        ArcTask(
            id=f"t{i:02}",
            train=tuple(Pair(input=wide(), output=wide()) for _ in range(2)),
            test=(Pair(input=wide(), output=wide()),),
        )
        for i in range(30)
    ]
    design = experiment(save(tmp_path / "wide", *made)).design(letters)
    (asked,) = (e for e in design.evaluations if e.name == "augmented-test")
    on_its_side = encode(tuple((cell,) for cell in made[0].test[0].output[0]), "rows")
    for query in asked.queries:
        assert isinstance(query, GenerationQuery)
        assert query.max_tokens >= len(letters(on_its_side))


def test_each_example_is_left_out_in_turn(tasks: Path) -> None:
    design = experiment(tasks, test_time={"adapters": "one", "variants": 1}).design(letters)
    note = design.notes["training set of test-time"]
    assert note == {
        "tasks": 20,
        "by symmetry": 160,
        "by exchange as well": 160,
        "variants taken": 20,
        "examples": 20,
    }


# --- claims ----------------------------------------------------------------------------------


def test_a_model_that_understands_makes_every_claim_hold(tasks: Path) -> None:
    def loss(arm: str, item: ArcItem) -> float:
        del item
        return {"base": 2.0, "train-plain": 0.9}.get(arm, 0.5)

    found = verdicts(experiment(tasks), understands, loss)
    assert [v.outcome for v in found] == ["holds"] * 5


def test_a_model_that_learns_by_heart_helps_nothing_else(tasks: Path) -> None:
    def loss(arm: str, item: ArcItem) -> float:
        if learns_by_heart(arm, item):
            return 0.1
        # Augmentation makes it worse on what was not trained on.
        return 3.0 if arm == "train-augmented" else 2.0

    found = verdicts(experiment(tasks), learns_by_heart, loss)
    assert found[MEMORISED].outcome == "holds"
    assert found[AUGMENTATION].outcome == "fails"
    for claim in (TRANSFERS, TEST, COUNTING):
        # Ten tasks without a single success don't show that there is no gain.
        assert found[claim].outcome == "undecided"
        assert found[claim].criteria[0].value == 0
        assert found[claim].criteria[0].low < 0 < found[claim].criteria[0].high
        assert all(check.passed for check in found[claim].checks)


def test_a_model_that_learns_nothing_leaves_all_undecided_but_memorising(tasks: Path) -> None:
    found = verdicts(experiment(tasks), lambda arm, item: 0.0, lambda arm, item: 1.0)
    assert found[MEMORISED].outcome == "fails"
    for claim in (TRANSFERS, TEST, COUNTING, AUGMENTATION):
        assert found[claim].outcome == "undecided"
        assert any("learned its tasks failed" in reason for reason in [found[claim].summary])


def test_training_that_harms_fails_the_claim_that_it_helps(tasks: Path) -> None:
    def harmed(arm: str, item: ArcItem) -> float:
        del item
        return float(arm == "base")

    found = verdicts(experiment(tasks), harmed, lambda arm, item: 2.0 if arm == "base" else 0.1)
    assert found[TEST].outcome == "fails"
    assert found[TRANSFERS].outcome == "fails"


# --- predictions -----------------------------------------------------------------------------


def test_votes_and_experts_are_of_grids_turned_back(tasks: Path) -> None:
    def at_times(arm: str, item: ArcItem) -> float:
        del item
        return {"train-augmented": 0.5, "test-time": 0.0}.get(arm, 1.0)

    found = find(
        experiment(tasks, prediction={"augmentations": 8, "k": 1, "n_samples": 2}), at_times
    )
    deep = row(found, 1, "train-augmented")
    # One of eight views is right nearly always; the scores, which like the right grid, find it then.
    assert deep["experts@1 %"].split()[0] == deep["among candidates %"].split()[0] == "100.0"
    share = float(deep["vote@1 %"].split()[0])
    assert 10 < share < 100
    assert row(found, 1, "test-time")["experts@1 %"].startswith("0.0 ")


def test_arms_of_single_tasks_are_one_system_in_the_report(tasks: Path) -> None:
    found = find(experiment(tasks, test_time={"adapters": "per_task"}), understands)
    assert row(found, 0, "test", "test-time")["greedy %"] == "100.0"
    assert row(found, 1, "test-time")["vote@2 %"].startswith("100.0")


def test_a_test_task_with_one_example_stays_with_the_model_before(tmp_path: Path) -> None:
    rng = random.Random(0)
    made = [random_task(f"t{i:02}", rng, n_train=1 + i % 2) for i in range(30)]
    asked = experiment(save(tmp_path / "mixed", *made), test_time={"adapters": "per_task"})
    tested = members(asked.design(letters), "test")
    assert {len(task.train) for task in tested} == {1, 2}

    def only_after_training(arm: str, item: ArcItem) -> float:
        del item
        return float(arm.startswith("test-time"))

    found = find(asked, only_after_training)
    share = sum(len(task.train) == 2 for task in tested) / len(tested)
    assert row(found, 0, "test", "test-time")["greedy %"] == f"{100 * share:.1f}"


def test_scores_that_are_not_known_settle_nothing(tasks: Path) -> None:
    asked = experiment(tasks)
    found = verdicts(asked, understands, lambda arm, item: float("inf"))
    for claim in (TRANSFERS, TEST, COUNTING, AUGMENTATION):
        assert found[claim].outcome == "undecided"
        assert "learned its tasks failed" in found[claim].summary


def test_without_search_and_test_time_training_there_is_neither(tasks: Path) -> None:
    asked = experiment(tasks, test_time={"adapters": "none"}, prediction={"search": None})
    design = asked.design(letters)
    assert not any(e.name.startswith("search") for e in design.evaluations)
    assert not any(arm.name.startswith("test-time") for arm in design.arms)
    assert len(find(asked, understands).verdicts) == 5


def test_answers_that_are_no_grids_are_counted_with_their_reason(tasks: Path) -> None:
    asked = experiment(tasks, max_tokens=5000)
    design = asked.design(letters)
    records = [json.loads(item.model_dump_json()) for item in design.items]
    answers = Answers(asked, design, understands, lambda arm, item: 1.0)
    answers._text = lambda arm, view: "I would rather not."  # type: ignore[method-assign]
    scores = answers.to(list(design.evaluations), Scores({}, {}, records))
    assert not asked.follow_ups(scores)
    found = asked.findings(scores)
    assert "100.0 (" in every(found, "test", "base")["no grid %"]
    tables = [c for c in found.sections[-1].content if isinstance(c, Table)]
    assert ("test", "base", "greedy", "10", "10", "10 no fenced block") in tables[-1].rows
    assert ("test", "base", "sampled", "40", "40", "40 no fenced block") in tables[-1].rows
