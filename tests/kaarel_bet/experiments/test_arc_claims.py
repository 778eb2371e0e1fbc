"""The claims of kaarel_bet/bets/arc.yaml: what becomes of them, to the numbers of the code before it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaarel_bet.bet.claims import Judge, check_claims
from kaarel_bet.bet.observations import Observations
from kaarel_bet.experiments.arc.grids import SETS, ArcItem
from tests.kaarel_bet.experiments.arc_tasks import (
    Loss,
    Played,
    Right,
    experiment,
    play,
    random_task,
    save,
)

CLAIMS = ["memorised", "transfers", "helps_the_test", "counting_helps", "augmentation_helps"]


@pytest.fixture
def tasks() -> Path:
    """A directory of thirty tasks that share nothing: by a relative path, which the draws depend on."""
    rng = random.Random(0)
    return save(Path("tasks"), *(random_task(f"t{i:02}", rng) for i in range(30)))


def outcomes(played: Played) -> dict[str, str]:
    return {name: verdict.outcome for name, verdict in played.verdicts.items()}


def failed(played: Played, claim: str) -> list[str]:
    return [check.name for check in played.verdicts[claim].checks if not check.passed]


def understands(arm: str, item: ArcItem) -> float:
    """Training helps everywhere, and counting first helps more."""
    del item
    return {"base": 0.0, "train_plain": 0.9, "train_augmented": 0.4}.get(arm, 1.0)


def learns_by_heart(arm: str, item: ArcItem) -> float:
    """What was trained on, and nothing else."""
    trained = {
        "train": ("train_plain", "train_augmented", "counting_then_train"),
        "other": ("other_augmented",),
        "test": ("test_time",),
    }
    return float(arm in trained[item.part])


def test_every_expression_of_the_bet_can_be_read(tasks: Path) -> None:
    for adapters in ("none", "one", "per_task"):
        asked = experiment(tasks, test_time={"adapters": adapters})
        check_claims(asked.bet, asked.vocabulary())
        assert list(asked.bet.claims) == CLAIMS


def test_everything_that_can_be_named_is_observed(tasks: Path) -> None:
    played = play(experiment(tasks), understands)
    named = {
        (quantity, "", name, arm)
        for name, question in played.judge.vocabulary.questions.items()
        for quantity in question.quantities
        for arm in question.arms or ("",)
    }
    assert set(played.observations.keys()) == named


# --- the numbers of before ---------------------------------------------------------------------------

RIGHT = {  # arm -> how likely it solves a task of the training, the other and the test set
    "base": (0.05, 0.1, 0.1),
    "train_plain": (0.9, 0.2, 0.2),
    "train_augmented": (0.6, 0.5, 0.2),
    "other_augmented": (0.6, 0.8, 0.3),
    "counting_then_train": (0.7, 0.8, 0.6),
    "test_time": (0, 0, 0.5),
}
LOSS = {
    "base": (1.2, 1.2, 1.2),
    "train_plain": (0.05, 1.1, 1.4),
    "train_augmented": (0.35, 0.7, 0.8),
    "other_augmented": (0.6, 0.25, 0.9),
    "counting_then_train": (0.28, 0.6, 0.7),
    "test_time": (1, 1, 0.5),
}


def recorded(adapters: str, spread: float) -> Played:
    """The run whose numbers the code of before bets in files found as well.

    Every third task has two test inputs. Losses are known up to `spread`.
    """
    rng = random.Random(11)
    made = [random_task(f"t{i:02}", rng, 2 + i % 2, 1 + (i % 3 == 0)) for i in range(30)]

    def right(arm: str, item: ArcItem) -> float:
        return RIGHT[arm][SETS.index(item.part)]

    def loss(arm: str, item: ArcItem) -> tuple[float, float]:
        drawn = random.Random(f"{arm}/{item.id}").random()
        least = LOSS[arm][SETS.index(item.part)] * (0.5 + drawn)
        return least, least + spread

    directory = save(Path("tasks"), *made)
    return play(experiment(directory, test_time={"adapters": adapters}), right, loss)


VALUES = {
    "memorised": [0.9916666666666668],
    "transfers": [0.5833333333333334, 0.75],
    "helps_the_test": [-0.15],
    "counting_helps": [0.45],
    "augmentation_helps": [-0.49020547056027697],
}
"""Of the criteria."""


def criteria(played: Played) -> dict[str, list[tuple[float, float, float]]]:
    return {
        name: [(c.value, c.low, c.high) for c in verdict.criteria]
        for name, verdict in played.verdicts.items()
    }


@pytest.mark.parametrize(("adapters", "spread"), [("one", 0.0), ("per_task", 0.3)])
def test_criteria_have_the_values_of_before(adapters: str, spread: float) -> None:
    played = recorded(adapters, spread)
    found = criteria(played)
    assert list(found) == CLAIMS
    for name, values in VALUES.items():
        assert [value for value, *_ in found[name]] == pytest.approx(values, abs=1e-9)
    (_, low, high), *_ = found["augmentation_helps"]
    # What scores leave open is left open on either side; of one training there is no verdict.
    assert high - low > 2 * spread
    assert outcomes(played) == dict.fromkeys(CLAIMS, "undecided")


def test_what_is_observed_of_arms_in_depth_is_that_of_before() -> None:
    played = recorded("per_task", spread=0.0)
    found = {
        (quantity, arm): played.judge.estimate(f"mean({quantity}({question}, {arm}))").value
        for question, quantities in {
            "test": ("pass_at_k", "pass_at_1", "greedy", "loss"),
            "test.views": ("vote", "experts", "any_view", "any_candidate"),
        }.items()
        for quantity in quantities
        for arm in ("train_augmented", "test_time")
    }
    before = {
        "pass_at_k": (0.242, 0.742),
        "pass_at_1": (0.125, 0.5),
        "greedy": (0.1, 0.75),
        "loss": (0.756, 0.538),
        "vote": (0.55, 0.95),
        "experts": (0.8, 1.0),
        "any_view": (0.55, 0.95),
        "any_candidate": (0.8, 1.0),
    }
    for quantity, values in before.items():
        for arm, value in zip(("train_augmented", "test_time"), values, strict=True):
            assert found[quantity, arm] == pytest.approx(value, abs=6e-4)


# --- made-up models, which every training makes alike --------------------------------------------------


def play_thrice(tasks: Path, right: Right, loss: Loss) -> Played:
    """Three trainings of each arm, all alike, and questions enough to tell who can count."""
    counting = {"n_examples": 3, "n_test": 20, "max_side": 4}
    asked = experiment(tasks, replicate={"training": 3}, counting=counting)
    counters = ("counting", "counting-2", "counting-3")
    return play(asked, alike(right), alike(loss), counters=counters)


def alike(by_arm: Callable[[str, ArcItem], Any]) -> Callable[[str, ArcItem], Any]:
    """What an arm does, in every one of its trainings."""
    return lambda arm, item: by_arm(arm.partition("-")[0], item)


def test_a_model_that_understands_makes_every_claim_hold(tasks: Path) -> None:
    def loss(arm: str, item: ArcItem) -> float:
        del item
        return {"base": 2.0, "train_plain": 0.9}.get(arm, 0.5)

    played = play_thrice(tasks, understands, loss)
    assert outcomes(played) == dict.fromkeys(CLAIMS, "holds")


def test_a_model_that_learns_by_heart_helps_nothing_else(tasks: Path) -> None:
    def loss(arm: str, item: ArcItem) -> float:
        if learns_by_heart(arm, item):
            return 0.1
        # Augmentation makes it worse on what was not trained on.
        return 3.0 if arm == "train_augmented" else 2.0

    played = play_thrice(tasks, learns_by_heart, loss)
    assert outcomes(played)["memorised"] == "holds"
    assert outcomes(played)["augmentation_helps"] == "fails"
    for claim in ("transfers", "helps_the_test", "counting_helps"):
        # Ten tasks without a single success don't show that there is no gain.
        assert outcomes(played)[claim] == "undecided"
        (value, low, high), *_ = criteria(played)[claim]
        assert low < 0 == value < high
        assert not failed(played, claim)


def test_a_model_that_learns_nothing_leaves_all_undecided_but_memorising(tasks: Path) -> None:
    played = play_thrice(tasks, lambda arm, item: 0.0, lambda arm, item: 1.0)
    assert outcomes(played) == dict.fromkeys(CLAIMS, "undecided") | {"memorised": "fails"}
    assert failed(played, "transfers") == ["augmented learned", "other learned"]
    assert failed(played, "counting_helps") == ["continued learned"]
    assert failed(played, "augmentation_helps") == ["plain learned", "augmented learned"]


def test_training_that_harms_fails_the_claim_that_it_helps(tasks: Path) -> None:
    def harmed(arm: str, item: ArcItem) -> float:
        del item
        return float(arm == "base")

    played = play_thrice(tasks, harmed, lambda arm, item: 2.0 if arm == "base" else 0.1)
    assert outcomes(played)["helps_the_test"] == "fails"
    assert outcomes(played)["transfers"] == "fails"
    assert failed(played, "memorised") == ["not known before"]


def test_losses_that_are_not_known_settle_nothing(tasks: Path) -> None:
    played = play_thrice(tasks, understands, lambda arm, item: float("inf"))
    for claim in ("transfers", "helps_the_test", "counting_helps", "augmentation_helps"):
        assert outcomes(played)[claim] == "undecided"
        assert any(name.endswith("learned") for name in failed(played, claim))


def test_tasks_that_share_a_pair_leave_what_compares_their_sets_undecided() -> None:
    rng = random.Random(0)
    made = [random_task(f"t{i:02}", rng) for i in range(30)]
    first, again = save(Path("tasks"), *made), save(Path("again"), *made)
    sets = {name: {"source": str(first), "n_tasks": 10} for name in ("train", "other")}
    sets["test"] = {"source": str(again), "n_tasks": 30}
    allowing, strict = (
        experiment(first, sets=sets | {"leakage": leakage}) for leakage in ("allow", "drop")
    )
    played = play(allowing, understands)
    assert "test is apart" not in failed(played, "helps_the_test")
    # Dropping them leaves none to find, so the answers are those of the other experiment.
    found = Observations(strict.observe(played.answers))
    judge = Judge(strict.bet, strict.vocabulary(), found, played.answers.tables, 0)
    checks = {v.name: [c.name for c in v.checks if not c.passed] for v in judge.verdicts()}
    assert "test is apart" in checks["helps_the_test"]
    assert "test is apart" in checks["counting_helps"]
    assert judge.estimate("mean(leaked(tasks.test))").value == pytest.approx(1 / 3)
