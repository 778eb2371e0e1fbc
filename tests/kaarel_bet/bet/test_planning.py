"""What a bet can show, told before anything is trained."""

import math
import random
from pathlib import Path

import pytest

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.planning import Detectable, detectable, foresee
from kaarel_bet.experiments.interface import Experiment
from tests.kaarel_bet.bet.written import tokenize, written
from tests.kaarel_bet.experiments.arc_tasks import experiment, letters, random_task, save


def planned(bet: Experiment, tokens: object = tokenize) -> list[Detectable]:
    design = bet.design(tokens)  # pyright: ignore[reportArgumentType]
    judge = Judge(bet.bet, bet.vocabulary(), foresee(bet, design).observations, design.tables, 0)
    return detectable(judge)


PEOPLE = "\n  people: {rows: [" + ", ".join(f"{{name: n{i}, city: c{i}}}" for i in range(40)) + "]}"
ACCURACY = """
  where: {rows: people, prompt: ask, candidates: {right: "{city}", wrong: "not {city}"}, answer: right}"""


def test_probabilities_are_told_apart_by_a_factor_and_shares_by_a_difference() -> None:
    claims = """
  it: {criteria: ["median(P(right | where, tuned)) > 0.001", "mean(acc(where, tuned)) > 0.5"]}"""
    probability, share = planned(
        written(data=PEOPLE, evaluations=ACCURACY, claims=claims, replicate="{training: 5}")
    )
    assert probability.is_factor
    # Of 40 rows that differ by 2 nats: 1.25 * 2 / sqrt(40) * 2; and trainings' 0.5 / sqrt(5) * 2.8.
    assert 1.5 < math.log(probability.distance) / math.hypot(0.8, 0.63) * 2 < 3
    assert probability.words.startswith(
        "median(P(right | where, tuned)): can be told from 0.001 if it is a"
    )
    assert not share.is_factor
    assert 0.05 < share.distance < 0.25
    assert share.warning is None


def test_more_rows_and_more_trainings_show_less() -> None:
    claims = '\n  it: {criteria: ["mean(acc(where, tuned)) > 0.5"]}'
    few, many, often = (
        planned(
            written(
                data=PEOPLE,
                evaluations=ACCURACY.replace("{rows: people,", f"{{rows: people, take: {take},"),
                claims=claims,
                replicate=f"{{training: {n}}}",
            )
        )[0].distance
        for take, n in ((10, 3), (40, 3), (40, 10))
    )
    assert few > many > often


def test_a_claim_that_can_hardly_be_decided_is_warned_of() -> None:
    claims = '\n  it: {criteria: ["mean(acc(where, tuned)) > 0.9"]}'
    of = ACCURACY.replace("{rows: people,", "{rows: people, take: 6,")
    (found,) = planned(
        written(data=PEOPLE, evaluations=of, claims=claims, replicate="{training: 3}")
    )
    assert found.warning is not None
    assert "would have to be above 1." in found.warning
    assert "lies between 0 and 1" in found.warning


def test_one_question_asked_of_one_training_can_show_nothing() -> None:
    of = '\n  where: {prompt: "Where to?", candidates: {right: a, wrong: b}, answer: right}'
    claims = '\n  it: {criteria: ["mean(acc(where, tuned)) > 0.5"]}'
    (found,) = planned(written(evaluations=of, claims=claims))
    assert found.words.endswith("no effect can be told from 0.5, however large")


@pytest.mark.parametrize("adapters", ["none", "per_task"])
def test_arc_is_planned_as_well(adapters: str, tmp_path: Path) -> None:
    """Of ten tasks a gain has to be tens of points."""
    rng = random.Random(0)
    tasks = save(tmp_path / "tasks", *(random_task(f"t{i:02}", rng) for i in range(30)))
    arc = experiment(tasks, replicate={"training": 3}, test_time={"adapters": adapters})
    gain = next(one for one in planned(arc, letters) if "pass_at_k(test, train" in one.criterion)
    assert 0.3 < gain.distance < 1.2
