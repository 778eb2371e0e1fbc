"""Several trainings of every arm: what each learns and is asked, and what becomes of their answers."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from backends.data import ScoringQuery
from backends.errors import SettingsError
from backends.jsonl import dumps
from kaarel_bet.cli import main
from kaarel_bet.content import GridFigure, Table
from kaarel_bet.experiments.arc.grids import ArcItem, encode
from kaarel_bet.experiments.interface import Arm, Design, Training
from tests.kaarel_bet.experiments.arc_tasks import (
    Played,
    experiment,
    items_of,
    letters,
    play,
    random_task,
    save,
)

TWICE = {"training": 2}


@pytest.fixture
def tasks() -> Path:
    """A directory of thirty tasks that share nothing: by a relative path, which the draws depend on."""
    rng = random.Random(0)
    return save(Path("tasks"), *(random_task(f"t{i:02}", rng) for i in range(30)))


def trainings(design: Design, replicate: int) -> dict[str, Training]:
    """The trained models of a replicate."""
    of = (arm for arm in design.arms if arm.replicate == replicate)
    return {arm.name: arm.training for arm in of if arm.training}


def texts(training: Training) -> list[str]:
    return [dumps(example) for example in training.examples]


def found_tables(played: Played, title: str) -> list[Table]:
    (section,) = (one for one in played.sections if one.title.startswith(title))
    return [one for one in section.content if isinstance(one, Table)]


# --- what they learn and are asked -------------------------------------------------------------------


def learned(arms: Iterable[Arm]) -> Iterator[str]:
    for arm in arms:
        if one := arm.training:
            yield f"{arm.name} {one.starts_from} {one.seed}"
            yield from map(dumps, (*one.examples, *one.validation))


def asked(design: Design, models: set[str]) -> Iterator[str]:
    for one in design.evaluations:
        yield f"{one.name} {one.question} {' '.join(name for name in one.arms if name in models)}"
        yield from map(dumps, one.queries)


def sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# Of the code that trained every arm once.
BEFORE = {
    "one": (
        "652bf6753b8784c5b27559910fccfd238af4df1945d762c400f701903129fa84",
        "ce2a1eea10738a200842f1e6d0aa4086ea24bc04d2a25fb40377c33774ac3919",
    ),
    "per_task": (
        "f0824bea3b86dedb787832445f7a1c3c7642ab80dd35ea5a6a66105b59fb05d3",
        "643d103c35048563e33147d766509d8e5d64ebcecaa5cb13c04cb237046768de",
    ),
}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("adapters", BEFORE)
def test_the_first_training_is_to_the_byte_that_of_before(
    tasks: Path, adapters: str, n: int
) -> None:
    changes = {"test_time": {"adapters": adapters}, "replicate": {"training": n}}
    design = experiment(tasks, **changes).design(letters)
    first = [arm for arm in design.arms if arm.replicate == 1]
    found = sha256(learned(first)), sha256(asked(design, {arm.name for arm in first}))
    assert found == BEFORE[adapters]
    assert len(design.arms) == 1 + n * (len(first) - 1)


def test_each_training_has_its_own_seed_and_variants_and_goes_on_from_its_own(tasks: Path) -> None:
    design = experiment(tasks, replicate={"training": 3}).design(letters)
    first = trainings(design, 1)
    for replicate in (2, 3):
        others = trainings(design, replicate)
        assert list(others) == [f"{name}-{replicate}" for name in first]
        for name, one in first.items():
            other = others[f"{name}-{replicate}"]
            assert (one.seed, other.seed) == (0, replicate - 1)
            assert other.starts_from == (one.starts_from and f"{one.starts_from}-{replicate}")
            assert other.validation == one.validation
            drawn = name not in ("train_plain", "counting")
            assert (texts(other) != texts(one)) == drawn
        continued, augmented = (
            texts(others[f"{name}-{replicate}"])
            for name in ("counting_then_train", "train_augmented")
        )
        assert continued == augmented
    assert {arm.arm for arm in design.arms if arm.name.endswith("-2")} == {*first}


@pytest.mark.parametrize("adapters", ["one", "per_task"])
def test_every_training_is_asked_the_same_and_the_base_model_once(
    tasks: Path, adapters: str
) -> None:
    once, twice = (
        experiment(tasks, test_time={"adapters": adapters}, replicate={"training": n}).design(
            letters
        )
        for n in (1, 2)
    )
    for one, both in zip(once.evaluations, twice.evaluations, strict=True):
        again = [f"{name}-2" for name in one.arms if name != "base"]
        assert list(both.arms) == [*one.arms, *again]
        assert Counter(both.arms)["base"] <= 1
    assert [arm.name for arm in twice.arms].count("base") == 1


def test_models_of_single_tasks_go_on_from_the_same_training(tasks: Path) -> None:
    design = experiment(tasks, test_time={"adapters": "per_task"}, replicate=TWICE).design(letters)
    ids = sorted({item.task.id for item in items_of(design) if item.part == "test"})
    second = {n: t for n, t in trainings(design, 2).items() if n.startswith("test_time")}
    assert list(second) == [f"test_time-{task}-2" for task in ids]
    assert {one.starts_from for one in second.values()} == {"train_augmented-2"}


def test_a_tasks_name_that_makes_two_models_one_is_named() -> None:
    rng = random.Random(0)
    names = [f"t{i:02}" for i in range(20)]
    others = save(Path("tasks"), *(random_task(name, rng) for name in names))
    test = save(Path("test"), random_task("a", rng), random_task("a-2", rng))
    sets = {name: {"source": str(others), "n_tasks": 10} for name in ("train", "other")}
    sets["test"] = {"source": str(test), "n_tasks": None}
    made = experiment(others, sets=sets, test_time={"adapters": "per_task"}, replicate=TWICE)
    with pytest.raises(
        SettingsError, match=r"arc\.sets\.test: two models .* test_time-a-2; .*rename"
    ):
        made.design(letters)


# --- what becomes of their answers --------------------------------------------------------------------

RIGHT = {"base": 0.0, "train_plain": 1.0, "train_augmented": 1.0, "test_time": 1.0}
"""All first trainings are right about half of the time, but for these; of the second ones none is right."""


def first_is_right(arm: str, item: ArcItem) -> float:
    del item
    return RIGHT.get(arm, 0.5) if not arm.endswith("-2") else 0.0


@pytest.mark.parametrize("adapters", ["one", "per_task"])
def test_what_is_observed_is_of_each_training_its_own(tasks: Path, adapters: str) -> None:
    once, twice = (
        play(
            experiment(tasks, test_time={"adapters": adapters}, replicate={"training": n}),
            first_is_right,
        )
        for n in (1, 2)
    )
    assert once.observations.keys() == twice.observations.keys()
    for quantity, candidate, question, arm in once.observations.keys():  # noqa: SIM118
        runs = twice.observations.runs(quantity, question, arm, candidate)
        (alone,) = once.observations.runs(quantity, question, arm, candidate)
        assert runs[0] == alone
        assert len(runs) == (1 if arm in ("base", "") else 2), (quantity, question, arm)
        assert {one.replicate for one in runs[-1]} == {len(runs)}
        assert [one.row for one in runs[-1]] == [one.row for one in alone]
    for quantity in ("vote", "experts", "any_view", "any_candidate"):
        for arm in ("train_augmented", "test_time"):
            first, second = twice.observations.runs(quantity, "test.views", arm)
            assert {one.low for one in first} == {1}
            assert {one.high for one in second} == {0}


def test_experts_are_asked_of_each_training_about_candidates_of_its_own(tasks: Path) -> None:
    played = play(experiment(tasks, replicate=TWICE), first_is_right)
    names = [one.name for one in played.follow_ups]
    models = ["train_augmented", "test_time", "train_augmented-2", "test_time-2"]
    assert names == [f"experts.test-{model}" for model in models]
    assert [[*one.arms] for one in played.follow_ups] == [[model] for model in models]
    by_id = {item.id: item for item in items_of(experiment(tasks).design(letters))}
    for one in played.follow_ups:
        for query in one.queries:
            item, _, view = query.id.rpartition("@")
            if view == "0":
                assert isinstance(query, ScoringQuery)
                right = encode(by_id[item].expected, "rows")
                assert (right in query.candidates.values()) == (not one.name.endswith("-2"))


def test_a_task_with_nothing_to_train_on_stays_with_the_same_training() -> None:
    rng = random.Random(0)
    made = [random_task(f"t{i:02}", rng, n_train=1) for i in range(30)]
    single = experiment(
        save(Path("single"), *made), test_time={"adapters": "per_task"}, replicate=TWICE
    )
    assert not any(arm.arm == "test_time" for arm in single.design(letters).arms)
    played = play(single, first_is_right)
    for question, quantity in (("test", "greedy"), ("test.views", "experts")):
        first, second = played.observations.runs(quantity, question, "test_time")
        assert {one.high for one in first} == {1}
        assert {one.high for one in second} == {0}


# --- the report ----------------------------------------------------------------------------------------


def test_the_report_shows_means_and_every_training(tasks: Path) -> None:
    played = play(experiment(tasks, replicate=TWICE), first_is_right)
    short, _, each = found_tables(played, "Answers to")
    assert ("train", "train_plain", "50.0", "50.0", "50.0", "0.500") in short.rows
    assert played.judge.estimate("mean(pass_at_k(train, train_plain))").value == 0.5
    of_plain = [row for row in each.rows if row[:2] == ("train", "train_plain")]
    assert each.columns[:4] == ("set", "arm", "training", "greedy %")
    assert [(row[2], row[3], row[-1]) for row in of_plain] == [
        ("1", "100.0", "0.000"),
        ("2", "0.0", "1.000"),
    ]
    assert not any(row[1] == "base" for row in each.rows)
    _, in_views = found_tables(played, "The test set under")
    assert in_views.columns[:3] == ("arm", "training", "vote@2 %")
    assert ("test_time", "1", "100.0", "100.0", "100.0", "100.0") in in_views.rows
    assert ("test_time", "2", "0.0", "0.0", "0.0", "0.0") in in_views.rows
    counted, counted_each, _ = found_tables(played, "Counting")
    assert ("counting", "50.0", "4") in counted.rows
    assert list(counted_each.rows) == [("counting", "1", "100.0"), ("counting", "2", "0.0")]


def test_pictures_are_of_the_first_training(tasks: Path) -> None:
    (solved,) = (
        one
        for one in play(experiment(tasks, replicate=TWICE), first_is_right).sections
        if one.title == "Solved tasks"
    )
    assert "of train_augmented in its first training;" in solved.text
    assert len([one for one in solved.content if isinstance(one, GridFigure)]) == 4


def test_answers_that_are_no_grids_are_those_of_all_trainings(tasks: Path) -> None:
    played = play(experiment(tasks, replicate=TWICE), first_is_right, says="No.")
    *_, reasons = found_tables(played, "Counting")
    assert ("test", "base", "greedy", "10", "10", "10 no fenced block") in reasons.rows
    assert ("test", "test_time", "in views", "60", "60", "60 no fenced block") in reasons.rows


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "was fine-tuned once: intervals are over tasks, and know nothing"),
        (2, "was fine-tuned 2 times: intervals are over tasks and trainings."),
    ],
)
def test_the_report_says_what_intervals_know_of(tasks: Path, n: int, words: str) -> None:
    changes = {"replicate": {"training": n}}
    played = play(experiment(tasks, **changes), first_is_right)
    assert words in played.sections[0].text
    assert ("and trainings, of a task's" in played.sections[0].text) == (n > 1)
    text = "".join(one.text for one in played.sections)
    assert ("first training" in text) == (n > 1)
    assert len(found_tables(played, "Answers to")) == (2 if n == 1 else 3)
    assert len(found_tables(played, "The test set under")) == n


# --- a run ---------------------------------------------------------------------------------------------


def test_a_run_of_two_trainings_ends_with_all_models_and_verdicts(
    tiny_model: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    directory = save(tmp_path / "tasks", *(random_task(f"t{i}", rng) for i in range(6)))
    settings = (
        *(
            f"arc.sets.{part}={{source: '{directory}', n_tasks: 2}}"
            for part in ("train", "other", "test")
        ),
        f"local.model={tiny_model}",
        "local.device=cpu",
        "local.training.epochs=1",
        "arc.replicate.training=2",
        "arc.counting={n_examples: 2, n_test: 2, max_side: 3}",
        "arc.prediction.n_samples=2",
        "arc.prediction.augmentations=2",
        "arc.augmentation.variants=1",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    run = tmp_path / "run"
    assert main(["run", "arc", "--run-dir", str(run), *words]) == 0

    arms = json.loads((run / "manifest.json").read_text())["arms"]
    trained = {arm["name"]: arm for arm in arms if arm["arm"] != "base"}
    assert len(trained) == 12
    assert {arm["replicate"] for arm in trained.values()} == {1, 2}
    adapters = [(run / f"models/{name}/adapter_model.safetensors").read_bytes() for name in trained]
    assert len(set(adapters)) == 12
    assert {path.name for path in (run / "scores").iterdir()} == {"base", *trained}
    assert len(json.loads((run / "verdict.json").read_text())["verdicts"]) == 5
    assert "was fine-tuned 2 times" in (run / "report.md").read_text()
