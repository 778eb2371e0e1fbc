"""How often intervals cover what is true, and verdicts are wrong: the shipped claims on known answers.

    uv run python benchmarks/coverage.py [--n 1000] [--json FILE] [--only TEXT]

Populations are drawn of which the truth is known; what a bet would observe of them goes through the same
`Judge` as a run's. A cell's line: how often the criterion's interval covers the truth; how often a claim
that is just not true is said to hold, or one that is just true to fail (the worse of the two); and how
often a claim that is true by a margin is decided so.
"""

import argparse
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import (
    BASE,
    DRAWS,
    LOG_PROBABILITY,
    SHARE,
    Observations,
    Question,
    Vocabulary,
)
from kaarel_bet.bet.schema import BetBase
from kaarel_bet.estimates import Sample

Values = NDArray[np.float64]

_ARMS = ("a", "b")
_QUESTIONS = {
    "asked": Question(
        frozenset((BASE, *_ARMS)), {"logP": LOG_PROBABILITY, "acc": SHARE}, ("yes", "no"), "rows"
    ),
    "shots": Question(frozenset((BASE,)), {"acc": SHARE}, (), "rows"),
}


@dataclass(frozen=True)
class Cell:
    """One way that a world can be: what is drawn of it, and the truth of an expression in it.

    `margin` is by how much a claim is true where its power is told: added, or for probabilities a factor.
    """

    name: str
    expression: str
    draw: Callable[[np.random.Generator], dict[tuple[str, str, str, str], Sample]]
    truth: float
    margin: float
    default: bool = True
    settings: int = 1
    """The best of so many is taken, and said to be."""


class _Drawn(Observations):
    """What a run would have observed."""

    def __init__(self, samples: dict[tuple[str, str, str, str], Sample]) -> None:
        super().__init__(())
        self._drawn = samples

    @override
    def sample(self, quantity: str, question: str, arm: str, candidate: str = "") -> Sample:
        return self._drawn[quantity, question, arm, candidate]


def judge(cell: Cell, threshold: float, rng: np.random.Generator) -> Judge:
    """Of one bet in the cell's world; with several settings, of that where the expression is largest."""
    claim = {"criteria": [f"{cell.expression} > {threshold!r}"]}
    bet = BetBase.model_validate_json(
        json.dumps(
            {
                "bet": 1,
                "name": "known",
                "question": "?",
                "claims": {"it": claim},
                "intervals": {"settings_tried": cell.settings},
            }
        )
    )
    known = Vocabulary((BASE, *_ARMS), _QUESTIONS)
    drawn = [Judge(bet, known, _Drawn(cell.draw(rng)), {}, 0) for _ in range(cell.settings)]
    if cell.settings == 1:
        return drawn[0]
    return max(drawn, key=lambda one: one.estimate(cell.expression).value)


@dataclass(frozen=True)
class Found:
    """What a cell's repetitions came to; shares from 0 to 1."""

    cell: str
    default: bool
    coverage: float
    false_verdicts: float
    power: float


def found(cell: Cell, n: int) -> Found:
    """Repeats a cell's bet."""
    rng = np.random.default_rng(zlib.crc32(cell.name.encode()))
    covered = held = failed = powerful = 0
    multiplies = "P(" in cell.expression
    easy = cell.truth / cell.margin if multiplies else cell.truth - cell.margin
    for _ in range(n):
        # Against the truth itself: neither "holds" nor "fails" may come out.
        (verdict,) = (one := judge(cell, cell.truth, rng)).verdicts()
        (criterion,) = verdict.criteria
        covered += criterion.low <= cell.truth <= criterion.high
        held += verdict.outcome == "holds"
        failed += verdict.outcome == "fails"
        estimate = one.estimate(cell.expression)
        powerful += estimate.low > easy
    worse = max(held, failed) if cell.settings == 1 else held
    return Found(cell.name, cell.default, covered / n, worse / n, powerful / n)


# --- worlds ------------------------------------------------------------------------------------------


def _exact(values: Values, clusters: tuple[str, ...], runs: str) -> Sample:
    return Sample(values, values, clusters, (runs,), "rows")


def _names(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def probabilities(
    n: int, runs: int, spread: float, run_effect: float, mixture: float = 0.0
) -> Callable[[np.random.Generator], dict[tuple[str, str, str, str], Sample]]:
    """Names whose log-probabilities are normal about ln 1e-4; trainings shift all of them.

    Of `mixture`, a share of names has a probability near 0.5, as if the rule was known for some.
    """

    def draw(rng: np.random.Generator) -> dict[tuple[str, str, str, str], Sample]:
        of_name = math.log(1e-4) + spread * rng.standard_normal(n)
        of_name = np.where(rng.random(n) < mixture, math.log(0.5), of_name)
        shift = run_effect * rng.standard_normal((runs, 1))
        own = 0.3 * rng.standard_normal((runs, n))
        values = np.minimum(of_name + shift + own, 0.0)
        other = 0.5 * of_name + shift + 0.3 * rng.standard_normal((runs, n))
        return {
            ("logP", "asked", "a", "yes"): _exact(values, _names(n), "a"),
            ("logP", "asked", "a", "no"): _exact(np.minimum(other, 0.0), _names(n), "a"),
        }

    return draw


def accuracies(
    n: int, runs: int, points: float, *, clusters: int | None = None, draws: int = 5
) -> Callable[[np.random.Generator], dict[tuple[str, str, str, str], Sample]]:
    """Rows that are right with 0.5 (base), 0.55 (few-shot) and 0.75 (tuned), alike in how hard they are.

    Trainings and draws of examples differ by a standard deviation of so many points; rows of one cluster
    (a template) share how hard they are.
    """

    def right(
        rng: np.random.Generator, level: float, hard: Values, m: int, sd: float = points
    ) -> Values:
        each = level + sd / 100 * rng.standard_normal((m, 1))
        return (rng.random((m, n)) < np.clip(each + hard, 0, 1)).astype(np.float64)

    def draw(rng: np.random.Generator) -> dict[tuple[str, str, str, str], Sample]:
        of = np.arange(n) % (clusters or n)
        hard = (0.2 * rng.uniform(-1, 1, size=clusters or n))[of]
        names = tuple(map(str, of))
        shots = f"{BASE}{DRAWS}shots"
        return {
            ("acc", "asked", "a", ""): _exact(right(rng, 0.75, hard, runs), names, "a"),
            ("acc", "asked", "b", ""): _exact(right(rng, 0.75, hard, runs), names, "b"),
            ("acc", "asked", BASE, ""): _exact(right(rng, 0.5, hard, 1, 0.0), names, BASE),
            ("acc", "shots", BASE, ""): _exact(right(rng, 0.55, hard, draws), names, shots),
        }

    return draw


def cells() -> Iterator[Cell]:
    """Every world that is tried."""
    median = "median(P(yes | asked, a))"
    for n in (8, 32, 128):
        for spread in (0.5, 2, 4):
            for effect in (0, 0.5, 1, 2):
                for runs in (3, 5, 10):
                    if (n, spread) != (32, 2) and (runs != 5 or effect not in (0, 1)):
                        continue
                    name = f"median P, {n} names sd {spread}, {runs} trainings sd {effect} nats"
                    yield Cell(name, median, probabilities(n, runs, spread, effect), 1e-4, 30)
        world = probabilities(n, 5, 2, 1, mixture=0.03)
        name = f"median P, {n} names of which 3 % near 0.5, 5 trainings sd 1 nat"
        # A share of .03 above moves the median to the quantile of .5 / .97 of the others.
        truth = 1e-4 * math.exp(2 * 0.03886)
        yield Cell(name, median, world, truth, 30)
    ratio = "median(P(no | asked, a)) / median(P(yes | asked, a))"
    for n, runs in ((32, 3), (32, 5), (128, 5)):
        name = f"ratio of medians, {n} names sd 2, {runs} trainings sd 1 nat"
        yield Cell(name, ratio, probabilities(n, runs, 2, 1), 100.0, 3)
    name = "mean P, 32 names sd 0.5, 5 trainings sd 0.5 nats"
    truth = 1e-4 * math.exp(0.5 * (0.25 + 0.25 + 0.09))
    yield Cell(
        name, "mean(P(yes | asked, a))", probabilities(32, 5, 0.5, 0.5), truth, 30, default=False
    )
    name = "mean P, 32 names sd 4, 5 trainings sd 1 nat"
    yield Cell(
        name,
        "mean(P(yes | asked, a))",
        probabilities(32, 5, 4, 1),
        _mean_of_minimum(4, 1),
        30,
        default=False,
    )
    share = "mean(acc(asked, a))"
    difference = "mean(acc(asked, a)) - mean(acc(asked, base))"
    arms = "mean(acc(asked, a)) - mean(acc(asked, b))"
    gain = "gain(acc(asked, a), acc(asked, base))"
    lead = "lead(acc(asked, a), acc(shots, base), acc(asked, base))"
    expressions = {"accuracy": (share, 0.75, 0.2), "difference to base": (difference, 0.25, 0.2),
                   "difference of arms": (arms, 0.0, 0.2), "gain": (gain, 0.5, 0.3),
                   "lead": (lead, 0.4, 0.3)}  # fmt: skip
    for what, (expression, truth, margin) in expressions.items():
        for n in (8, 20, 60, 200, 400):
            for runs in (3, 5, 10):
                for points in (0, 2, 5):
                    if (n not in (60, 200) or runs == 10) and (runs, points) != (5, 2):
                        continue
                    name = f"{what}, {n} rows, {runs} trainings sd {points} points"
                    yield Cell(name, expression, accuracies(n, runs, points), truth, margin)
    for clusters in (3, 9, 20):
        world = accuracies(180, 5, 2, clusters=clusters)
        name = f"accuracy, 180 rows of {clusters} templates, 5 trainings sd 2 points"
        yield Cell(name, share, world, 0.75, 0.2, default=clusters >= 10)
    for settings in (5, 50):
        name = f"median P, the best of {settings}, 32 names sd 2, 5 trainings sd 1 nat"
        yield Cell(name, median, probabilities(32, 5, 2, 1), 1e-4, 30, settings=settings)


def _mean_of_minimum(spread: float, effect: float) -> float:
    """E[min(1, P)] of a log-normal probability about 1e-4, by quadrature."""
    x = np.linspace(-12, 12, 200_001)
    weights = np.exp(-(x**2) / 2)
    values = np.exp(np.minimum(math.log(1e-4) + math.hypot(spread, effect, 0.3) * x, 0))
    return float((values * weights).sum() / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1000, help="repetitions of every cell")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", help="cells whose names have this in them")
    options = parser.parse_args()
    results = []
    print(f"{'':<72}{'coverage':>9}{'false':>7}{'power':>7}")
    for cell in cells():
        if options.only not in cell.name:
            continue
        n = max(50, options.n // cell.settings)
        one = found(cell, n)
        results.append(asdict(one))
        rates = f"{one.coverage:>9.1%}{one.false_verdicts:>7.1%}{one.power:>7.0%}"
        print(f"{cell.name:<72}{rates}{'' if cell.default else '  (not a default)'}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
