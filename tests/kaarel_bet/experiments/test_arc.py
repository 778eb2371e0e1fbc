"""The experiment: what is trained and asked, and what its report shows of the answers."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from backends.data import GenerationQuery, LogProbability
from backends.errors import SettingsError
from kaarel_bet.content import Table
from kaarel_bet.experiments.arc.arms import TrainingSets
from kaarel_bet.experiments.arc.augmentation import views
from kaarel_bet.experiments.arc.grids import ArcItem, ArcTask, Grid, Pair, encode
from kaarel_bet.experiments.arc.prompts import Lengths
from kaarel_bet.experiments.arc.sets import draw_sets, load, shared
from kaarel_bet.experiments.arc.settings import AugmentationSettings
from kaarel_bet.experiments.interface import Design
from tests.kaarel_bet.experiments.arc_tasks import (
    Played,
    experiment,
    items_of,
    letters,
    other_grid,
    play,
    random_task,
    save,
)


@pytest.fixture
def tasks() -> Path:
    """A directory of thirty tasks that share nothing: by a relative path, which the draws depend on."""
    rng = random.Random(0)
    return save(Path("tasks"), *(random_task(f"t{i:02}", rng) for i in range(30)))


def members(design: Design, part: str) -> list[ArcTask]:
    return [item.task for item in items_of(design) if item.part == part]


def texts_trained_on(design: Design, model: str) -> list[str]:
    (training,) = (a.training for a in design.arms if a.name == model)
    assert training is not None
    return [e.model_dump_json() for e in training.examples]


def tables(played: Played, section: int) -> list[Table]:
    return [c for c in played.sections[section].content if isinstance(c, Table)]


def row(table: Table, *begins: str) -> dict[str, str]:
    (found,) = (r for r in table.rows if tuple(r[: len(begins)]) == begins)
    return dict(zip(table.columns, found, strict=True))


def understands(arm: str, item: ArcItem) -> float:
    """Training helps everywhere, and counting first helps more."""
    del item
    return {"base": 0.0, "train_plain": 0.9, "train_augmented": 0.4}.get(arm, 1.0)


# --- sets ------------------------------------------------------------------------------------


def test_sets_of_one_source_share_no_task_and_no_pair(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    sets = [members(design, part) for part in ("train", "other", "test")]
    assert [len(part) for part in sets] == [10, 10, 10]
    assert not shared(sets[0], [*sets[1], *sets[2]])
    assert not shared(sets[1], sets[2])


def with_a_leak(tasks: Path) -> dict[str, Any]:
    """A test set that has a task of the training set, turned and recoloured."""
    leaking = random_task("turned", random.Random(5))
    turned = [
        Pair(
            input=tuple(zip(*other_grid(p.input), strict=True)),
            output=tuple(zip(*other_grid(p.output), strict=True)),
        )
        for p in (*leaking.train, *leaking.test)
    ]
    train = save(Path("train"), leaking)
    original = ArcTask(id="original", train=tuple(turned[1:]), test=(turned[0],))
    test = save(Path("test"), original, random_task("fine", random.Random(6)))
    return {
        "train": {"source": str(train), "n_tasks": None},
        "other": {"source": str(tasks), "n_tasks": 3},
        "test": {"source": str(test), "n_tasks": None},
    }


def test_a_leaking_task_is_dropped_and_counted(tasks: Path) -> None:
    design = experiment(tasks, sets=with_a_leak(tasks)).design(letters)
    assert [task.id for task in members(design, "test")] == ["fine"]
    assert "sharing a pair with a task taken before, passed over: 1" in str(design.notes)


def test_a_leaking_task_is_refused_where_it_must_not_be_dropped(
    tasks: Path,
) -> None:
    sets = with_a_leak(tasks) | {"leakage": "refuse"}
    with pytest.raises(SettingsError, match=r"arc\.sets\.leakage: tasks original and turned share"):
        experiment(tasks, sets=sets).design(letters)


def test_an_allowed_leak_is_observed_and_in_the_report(tasks: Path) -> None:
    sets = with_a_leak(tasks) | {"leakage": "allow"}
    played = play(experiment(tasks, sets=sets), understands)
    found = {
        quantity: [one.low for one in played.observations.of(quantity, "tasks.test", "")]
        for quantity in ("shared", "leaked")
    }
    assert found == {"shared": [0, 1], "leaked": [0, 0]}
    assert "1 tasks of test share a pair, modulo augmentation" in played.sections[0].text


def test_what_is_too_long_is_left_out_whole_and_counted(tasks: Path) -> None:
    save(tasks, random_task("long", random.Random(1), n_train=12))
    design = experiment(tasks, max_tokens=1200).design(letters)
    assert "passed over: 0 longer" in str(design.notes)  # the smallest come first
    sets = {name: {"source": str(tasks), "n_tasks": 10} for name in ("train", "other", "test")}
    sets["train"]["n_tasks"] = 11
    with pytest.raises(SettingsError, match=r"has 30 tasks that fit, not 31 \(1 are longer"):
        experiment(tasks, max_tokens=1200, sets=sets).design(letters)


def test_a_task_with_two_test_inputs_is_as_large_as_its_two_prompts() -> None:
    def square(side: int) -> Pair:
        grid: Grid = ((1,) * side,) * side
        return Pair(input=grid, output=grid)

    asked_twice = ArcTask(id="a", train=(square(4),) * 2, test=(square(2), square(2)))
    asked_once = ArcTask(id="b", train=(square(5),) * 2, test=(square(2),))
    for task in (asked_twice, asked_once):
        save(Path("tasks"), task)
    settings = {
        "train": {"source": str(Path("tasks")), "n_tasks": 1},
        "other": {"source": "arc1-training", "n_tasks": 1},
        "test": {"source": "arc1-evaluation", "n_tasks": 1},
    }
    bet = experiment(Path(), sets=settings).bet
    sets, _ = draw_sets(bet.sets, Lengths(letters, "rows", 2000), 0)
    assert [task.id for task in sets["train"]] == ["b"]


def test_too_many_tasks_and_no_tasks_are_named(tasks: Path) -> None:
    with pytest.raises(SettingsError, match=r"arc\.sets\.train: .* has 0 tasks that fit"):
        experiment(tasks, max_tokens=10).design(letters)
    with pytest.raises(SettingsError, match="each needs its n_tasks"):
        experiment(tasks, sets={"train": {"source": "arc1-evaluation", "n_tasks": None}})


# --- arms ------------------------------------------------------------------------------------


def test_arms_with_and_without_augmentation_see_as_many_examples(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    plain, augmented = (
        texts_trained_on(design, f"train_{kind}") for kind in ("plain", "augmented")
    )
    assert len(plain) == len(augmented) == 20
    assert len(set(plain)) == 10
    assert len(set(augmented)) == 20


def test_counting_first_changes_nothing_else(tasks: Path) -> None:
    design = experiment(tasks).design(letters)
    trainings = {arm.name: arm.training for arm in design.arms}
    first, second = trainings["counting_then_train"], trainings["train_augmented"]
    assert first is not None
    assert second is not None
    assert first.examples == second.examples
    assert first.starts_from == "counting"
    questions = [e.model_dump_json() for e in (trainings["counting"] or first).examples]
    (asked,) = (e for e in design.evaluations if e.name == "counting")
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
    arms = [arm for arm in design.arms if arm.arm == "test_time"]
    assert len(arms) == (1 if adapters == "one" else 10)
    for arm in arms:
        assert arm.training
        assert arm.training.starts_from == "train_augmented"
    learned = "".join(text for arm in arms for text in texts_trained_on(design, arm.name))
    for task in members(design, "test"):
        for grid in (task.test[0].input, task.test[0].output):
            assert json.dumps(encode(grid, "rows"))[1:-1] not in learned
        assert json.dumps(encode(task.train[0].output, "rows"))[1:-1] in learned


def test_counts_are_in_the_manifest(tasks: Path) -> None:
    design = experiment(tasks, augmentation={"variants": None}).design(letters)
    # Eight symmetries of the task and of its exchanges of two train pairs with one test pair.
    everything = 10 * 8 * (1 + 2)
    assert design.notes["training set of train_augmented"] == {
        "tasks": 10,
        "by symmetry": 80,
        "by exchange as well": everything,
        "variants taken": everything,
        "examples": everything,
    }


def augmentation(**changes: Any) -> AugmentationSettings:
    return experiment(Path(), augmentation=changes).bet.augmentation


def test_arc1_training_is_counted_as_arc24_counted_it() -> None:
    nothing = Lengths(lambda text: (), "rows", 1)
    by = augmentation(variants=1)
    made = TrainingSets(nothing, by, 0)
    made.augmented("arm", load("arc1-training", "arc.sets.train.source"))
    assert made.notes["training set of arm"] == {
        "tasks": 400,
        "by symmetry": 3200,
        "by exchange as well": 14336,
        "variants taken": 400,
        "examples": 416,
    }


def test_views_vary_only_as_training_does(tasks: Path) -> None:
    by = augmentation(symmetries=False, keep_background=True, order=False)
    (item, *_) = items_of(experiment(tasks).design(letters))
    for view in views(item, 8, by, 0):
        assert view.augmentation.symmetry == 0
        assert view.augmentation.colours[0] == 0
        turned_back = [view.augmentation.invert(pair.input) for pair in view.task.train]
        assert turned_back == [pair.input for pair in item.task.train]


def test_a_wide_grids_answer_has_room_on_its_side_too() -> None:
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
    design = experiment(save(Path("wide"), *made)).design(letters)
    (asked,) = (e for e in design.evaluations if e.name == "augmented.test")
    on_its_side = encode(tuple((cell,) for cell in made[0].test[0].output[0]), "rows")
    for query in asked.queries:
        assert isinstance(query, GenerationQuery)
        assert query.max_tokens >= len(letters(on_its_side))


def test_each_example_is_left_out_in_turn(tasks: Path) -> None:
    design = experiment(tasks, test_time={"adapters": "one", "variants": 1}).design(letters)
    note = design.notes["training set of test_time"]
    assert note == {
        "tasks": 20,
        "by symmetry": 160,
        "by exchange as well": 160,
        "variants taken": 20,
        "examples": 20,
    }


# --- predictions -----------------------------------------------------------------------------


def test_votes_and_experts_are_of_grids_turned_back(tasks: Path) -> None:
    def at_times(arm: str, item: ArcItem) -> float:
        del item
        return {"train_augmented": 0.5, "test_time": 0.0}.get(arm, 1.0)

    found = play(
        experiment(tasks, prediction={"augmentations": 8, "k": 1, "n_samples": 2}), at_times
    )
    deep = row(tables(found, 1)[0], "train_augmented")
    # One of eight views is right nearly always; the scores, which like the right grid, find it then.
    assert deep["experts@1 %"].split()[0] == deep["among candidates %"].split()[0] == "100.0"
    share = float(deep["vote@1 %"].split()[0])
    assert 10 < share < 100
    assert row(tables(found, 1)[0], "test_time")["experts@1 %"].startswith("0.0 ")


def test_arms_of_single_tasks_are_one_system_in_the_report(tasks: Path) -> None:
    found = play(experiment(tasks, test_time={"adapters": "per_task"}), understands)
    assert row(tables(found, 0)[0], "test", "test_time")["greedy %"] == "100.0"
    assert row(tables(found, 1)[0], "test_time")["vote@2 %"].startswith("100.0")


def test_a_test_task_with_one_example_stays_with_the_model_before() -> None:
    rng = random.Random(0)
    made = [random_task(f"t{i:02}", rng, n_train=1 + i % 2) for i in range(30)]
    asked = experiment(save(Path("mixed"), *made), test_time={"adapters": "per_task"})
    tested = members(asked.design(letters), "test")
    assert {len(task.train) for task in tested} == {1, 2}

    def only_after_training(arm: str, item: ArcItem) -> float:
        del item
        return float(arm == "test_time")

    found = play(asked, only_after_training)
    share = sum(len(task.train) == 2 for task in tested) / len(tested)
    assert row(tables(found, 0)[0], "test", "test_time")["greedy %"] == f"{100 * share:.1f}"


def test_without_search_and_test_time_training_there_is_neither(tasks: Path) -> None:
    asked = experiment(tasks, test_time={"adapters": "none"}, prediction={"search": None})
    design = asked.design(letters)
    assert not any(e.name.startswith("search") for e in design.evaluations)
    assert not any(arm.arm == "test_time" for arm in design.arms)
    assert "test_time" not in asked.vocabulary().arms
    assert len(play(asked, understands).verdicts) == 5


def test_answers_that_are_no_grids_are_counted_with_their_reason(tasks: Path) -> None:
    found = play(experiment(tasks), understands, says="I would rather not.")
    assert not found.follow_ups
    assert "100.0 (" in row(tables(found, 0)[1], "test", "base")["no grid %"]
    reasons = tables(found, -1)[1].rows
    assert ("test", "base", "greedy", "10", "10", "10 no fenced block") in reasons
    assert ("test", "base", "sampled", "40", "40", "40 no fenced block") in reasons


def test_nothing_to_train_on_at_test_time_leaves_the_arm_as_it_was() -> None:
    rng = random.Random(0)
    made = [random_task(f"t{i:02}", rng, n_train=1) for i in range(30)]
    asked = experiment(save(Path("single"), *made))
    assert not any(arm.arm == "test_time" for arm in asked.design(letters).arms)
    found = play(asked, understands)
    before, after = (row(tables(found, 1)[0], arm) for arm in ("train_augmented", "test_time"))
    assert before | {"arm": ""} == after | {"arm": ""}


def test_candidates_whose_log_probability_has_no_end_are_not_ranked(
    tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unbounded(value: float) -> LogProbability:
        return LogProbability(low=-math.inf, high=value)

    monkeypatch.setattr(LogProbability, "exact", unbounded)
    found = play(experiment(tasks, prediction={"augmentations": 8}), lambda arm, item: 0.5)
    assert row(tables(found, 1)[0], "test_time")["experts@2 %"] == "not settled"
    for one in found.observations.of("experts", "test.views", "test_time"):
        assert one.low == 0  # 1 at most where the right one is among the candidates
        (among,) = (
            other.low
            for other in found.observations.of("any_candidate", "test.views", "test_time")
            if other.row == one.row
        )
        assert one.high == among
