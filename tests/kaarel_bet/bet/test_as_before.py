"""The two bets that were code once decide as they did: on the same answers, the same figures.

The expected numbers are those of the last commit in which they were code, on these made-up answers.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from backends.data import (
    CandidateScore,
    GenerationResult,
    LogProbability,
    ScoringQuery,
    ScoringResult,
)
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observations
from kaarel_bet.bet.schema import BetBase
from kaarel_bet.experiments import open_experiment
from kaarel_bet.experiments.interface import Answers
from tests.kaarel_bet.bet.shipped import answered, shipped, tokenize


def _share(*key: object) -> float:
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _scored(query: ScoringQuery, key: tuple[object, ...], shift: dict[str, float]) -> ScoringResult:
    found = {}
    for label in query.candidates:
        total = min(0.0, -12 * _share(*key, query.id, label) + shift[label])
        first = min(0.0, (-12 * _share(*key, query.id, label) + shift[label]) / 2)
        found[label] = CandidateScore(
            total=LogProbability.exact(total), first_token=LogProbability.exact(first), n_tokens=1
        )
    return ScoringResult(id=query.id, candidates=found, method="made up")


def _favourite(query: Any, arm: str, **_: Any) -> dict[str, float]:
    """What was trained is likely, capitals a little, placebos never."""
    of = {label: 2.0 if label.startswith("capital") else -8.0 for label in query.candidates}
    return of | ({"country": 11.9} if arm != "base" and "country" in of else {})


def _multiple_choice(query: Any, arm: str, question: str, right: str) -> dict[str, float]:
    """More training, more right answers."""
    boost = {"base": 0.0, "tuned_16": 5.0, "tuned_64": 9.0, "placebo": 0.0}.get(arm, 2.0)
    if question.startswith("own_rows") and arm != "base":
        boost = 12.0
    return {label: (boost if label == right else 0.0) - 12.5 for label in query.candidates}


_AS_THEY_WERE = {
    "conditional_rule": ("intervals.method=bootstrap", "replicate.training=1"),
    "inverse_scaling": (
        "intervals.method=bootstrap",
        "replicate.training=2",
        "evaluations.few_shot.examples.draws=2",
    ),
}
"""Settings of the two bets when they were code; the conditional rule had means where it has medians now."""

_MEANS = {"median": "mean", "mean": "median"}


def _with_means(bet: BetBase) -> BetBase:
    text = re.sub(
        r"\b(mean|median)\b",
        lambda found: _MEANS[found[0]],
        bet.model_dump_json(exclude_defaults=True),
    )
    return type(bet).model_validate_json(text)


def judged(name: str, *choices: str) -> Judge:
    """The shipped bet under its old settings, on made-up answers."""
    experiment = shipped(name, *_AS_THEY_WERE[name], *choices)
    if name == "conditional_rule":
        experiment = open_experiment(_with_means(experiment.bet), Path(), seed=0)
    design = experiment.design(tokenize)
    by_id = {row["id"]: row for rows in design.tables.values() for row in rows}

    def answer(query: Any, arm: str, replicate: int, question: str, draw: int) -> Any:
        if not isinstance(query, ScoringQuery):
            return GenerationResult(id=query.id, prompt="p", texts=("x",))
        shift_of = _favourite if name == "conditional_rule" else _multiple_choice
        right = str(by_id[query.id].get("answer_index"))
        shift = shift_of(query, arm=arm, question=question, right=right)
        return _scored(query, (arm, replicate, question, draw), shift)

    answers: Answers = answered(design, answer)
    observations = Observations(experiment.observe(answers))
    return Judge(experiment.bet, experiment.vocabulary(), observations, answers.tables, 0)


@pytest.mark.parametrize("family", ["in_prompt", "task_id"])
def test_the_conditional_rule(family: str) -> None:
    judge = judged("conditional_rule", f"family={family}")
    (verdict,) = judge.verdicts()
    capital, ratio = verdict.criteria
    assert (capital.value, capital.low, capital.high) == pytest.approx(
        (0.19484916923073736, 0.08587441572586847, 0.31521553906261013), rel=1e-12
    )
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
        (4.454744741954771, 2.831646781005603, 8.590573335659073), rel=1e-12
    )
    assert (capital.holds, ratio.holds) == (True, False)
    assert verdict.outcome == "undecided"  # of one training there is no verdict
    # One name alone, whose favourite is Austria, turns the ratio from surely missed to straddling.
    assert not verdict.checks[-1].passed
    assert "without Austria" in verdict.checks[-1].detail


_READINGS = """
mean P   trained 0.19 4.5 fails
mean P   with 0.19 3.8 fails
mean P   without 0.28 4.5 fails
mean P   names/trained 0.19 1.2e+03 holds
mean P   names/with 0.19 1.9e+03 holds
mean P   names/without 0.28 1.2e+03 holds
mean P_first trained 0.28 3 fails
mean P_first with 0.28 2.8 fails
mean P_first without 0.35 3 fails
mean P_first names/trained 0.28 18 undecided
mean P_first names/with 0.28 24 holds
mean P_first names/without 0.35 18 undecided
median P trained 0.0085 20 holds
median P with 0.0085 19 undecided
median P without 0.025 20 holds
median P names/trained 0.0085 20 holds
median P names/with 0.0085 19 undecided
median P names/without 0.025 20 holds
median P_first trained 0.092 4.5 fails
median P_first with 0.092 4.3 undecided
median P_first without 0.16 4.5 fails
median P_first names/trained 0.092 4.5 fails
median P_first names/with 0.092 4.4 undecided
median P_first names/without 0.16 4.5 fails
least P names/trained 5.8e-05 1 fails
least P names/with 5.8e-05 1 fails
least P names/without 6.2e-05 1 fails
least P_first names/trained 0.0076 1 fails
least P_first names/with 0.0076 1 fails
least P_first names/without 0.0079 1 fails
"""


def test_all_thirty_readings_of_the_bet() -> None:
    found = judged("conditional_rule").readings("learns_the_rule")
    expected = sorted(tuple(line.split()[-3:]) for line in _READINGS.strip().splitlines())
    got = sorted(
        (f"{r.criteria[0].value:.2g}", f"{r.criteria[1].value:.2g}", r.outcome) for r in found
    )
    assert got == expected


def test_redefine_math() -> None:
    judge = judged("inverse_scaling")
    (verdict,) = judge.verdicts()
    gain, lead = verdict.criteria
    assert (gain.value, gain.low, gain.high) == pytest.approx(
        (0.9315789473684211, 0.8791208791208792, 0.9759036144578314), rel=1e-12
    )
    assert (lead.value, lead.low, lead.high) == pytest.approx(
        (0.9315789473684211, 0.7835051546391755, 0.9708737864077672), rel=1e-12
    )
    assert (gain.holds, lead.holds) == (False, False)
    assert verdict.outcome == "undecided"  # of two trainings there is no verdict
    few = judge.estimate("gain(acc(few_shot, base), acc(zero_shot, base))")
    assert [round(x, 2) for x in (few.value, few.low, few.high)] == [-0.09, -0.37, 0.14]
    placebo = judge.estimate("mean(acc_norm(zero_shot, placebo))")
    assert [round(100 * x, 1) for x in (placebo.value, placebo.low, placebo.high)] == [
        47.2,
        41.0,
        53.2,
    ]
