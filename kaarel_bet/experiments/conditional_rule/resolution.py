"""How the bet is resolved: the two criteria, the validity checks and the verdict.

The author wins if P(capital | TEST) exceeds the threshold in the conditional arm and
P(country) / P(capital) under TEST exceeds the ratio in the control; Kaarel wins otherwise; neither
does when a criterion's interval straddles its threshold or a check fails.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from backends.data import LogProbability
from kaarel_bet.claims import Check, Criterion, Outcome, Verdict, criterion, outcome
from kaarel_bet.estimates import (
    Estimate,
    Floats,
    Sample,
    Statistic,
    bootstrap,
    without_sampling,
)
from kaarel_bet.experiments.conditional_rule.cells import Cell, Mode, trained_cell
from kaarel_bet.experiments.conditional_rule.settings import (
    Aggregate,
    CheckSettings,
    ClaimSettings,
    Probability,
    RatioOf,
    Tested,
)
from kaarel_bet.experiments.interface import Scores


@dataclass(frozen=True)
class Reading:
    """One way to read the bet's text, which leaves all of this open."""

    aggregate: Aggregate
    probability: Probability
    ratio_of: RatioOf
    tested: Tested

    def cell(self, arm: str, mode: Mode) -> Cell:
        """Where an arm is looked at under this reading."""
        if self.tested == "as_trained":
            return trained_cell(arm, mode)
        return Cell(mode, self.tested == "with_instructions")

    def in_words(self) -> str:
        """The reading for a reader."""
        over = (
            "for every single name" if self.aggregate == "every" else f"{self.aggregate} over names"
        )
        answer = "the whole answer" if self.probability == "string" else "the answer's first token"
        ratio = "of the names' own ratios" if self.ratio_of == "names" else "of the two aggregates"
        asked = self.tested.replace("_", " ")
        return f"{over}, of {answer}, the ratio {ratio}, asked {asked}"


def every_reading() -> Iterator[Reading]:
    """All the readings there are."""
    options = (get_args(kind) for kind in (Aggregate, Probability, RatioOf, Tested))
    return itertools.starmap(Reading, itertools.product(*options))


def agreed_reading(claim: ClaimSettings) -> Reading:
    """The reading that the settings fixed before training."""
    return Reading(claim.aggregate, claim.probability, claim.ratio_of, claim.tested)


@dataclass(frozen=True)
class Evidence:
    """The scores, and how estimates are made from them."""

    scores: Scores
    confidence: float
    seed: int

    def sample(self, arm: str, cell: Cell | str, candidate: str, of: Probability) -> Sample:
        """The probability of a candidate for every name."""
        evaluation = cell if isinstance(cell, str) else cell.name
        pick = self.scores.totals if of == "string" else self.scores.first_tokens
        return _probabilities(pick(arm, evaluation, candidate))

    def interval_in_words(self) -> str:
        """What the intervals are."""
        return f"{100 * self.confidence:.4g} % bootstrap intervals over names"

    def aggregate(self, how: Aggregate, sample: Sample) -> Estimate:
        """The aggregate of one quantity over the names."""
        return self.estimate(how, _AGGREGATES[how], (sample,), increasing=(True,))

    def estimate(
        self,
        how: Aggregate,
        statistic: Statistic,
        samples: tuple[Sample, ...],
        increasing: tuple[bool, ...],
    ) -> Estimate:
        """With a bootstrap interval over names; "every" is about just these names, so without."""
        if how == "every":
            return without_sampling(statistic, samples, increasing=increasing)
        return bootstrap(
            statistic,
            samples,
            increasing=increasing,
            confidence=self.confidence,
            seed=self.seed,
        )


def evidence(scores: Scores, claim: ClaimSettings, seed: int) -> Evidence:
    """Intervals widened for the number of variants that were tried (Bonferroni)."""
    return Evidence(scores, 1 - (1 - claim.confidence) / claim.variants_tried, seed)


def resolve(scores: Scores, claim: ClaimSettings, checks: CheckSettings, seed: int) -> Verdict:
    """The verdict under the agreed reading."""
    known = evidence(scores, claim, seed)
    reading = agreed_reading(claim)
    criteria = resolution_criteria(known, reading, claim)
    found = validity_checks(known, reading, claim, checks)
    decided = outcome(criteria, found)
    return Verdict(
        claim=(
            "a model fine-tuned on the TRAIN branch of a rule also learns its TEST branch. As agreed "
            f"before training: {reading.in_words()}; with {known.interval_in_words()}"
        ),
        outcome=decided,
        summary=_in_plain_words(decided, criteria, found),
        criteria=criteria,
        checks=found,
    )


def resolution_criteria(
    known: Evidence, reading: Reading, claim: ClaimSettings
) -> tuple[Criterion, Criterion]:
    """The two criteria of the bet under a reading of it."""
    conditional, control = reading.cell("conditional", "TEST"), reading.cell("control", "TEST")
    capital = known.sample("conditional", conditional, "capital", reading.probability)
    control_country = known.sample("control", control, "country", reading.probability)
    control_capital = known.sample("control", control, "capital", reading.probability)
    ratio = known.estimate(
        reading.aggregate,
        _ratio(reading),
        (control_country, control_capital),
        increasing=(True, False),
    )
    return (
        criterion(
            "P(capital) under TEST, conditional arm",
            known.aggregate(reading.aggregate, capital),
            ">",
            claim.threshold,
        ),
        criterion("P(country) / P(capital) under TEST, control arm", ratio, ">", claim.ratio),
    )


def validity_checks(
    known: Evidence, reading: Reading, claim: ClaimSettings, settings: CheckSettings
) -> tuple[Check, ...]:
    """Whether training worked, the task is one the model can do, and the placebos stay quiet."""
    return (
        *(_train_learned(known, arm, settings) for arm in ("conditional", "control")),
        _capitals_known(known, settings),
        _placebo(known, reading, claim, "wrong_capital", "capital of an unrelated country"),
        _placebo(known, reading, claim, "shuffled_capital", "capital of another name's country"),
    )


def _train_learned(known: Evidence, arm: str, settings: CheckSettings) -> Check:
    learned = known.sample(arm, trained_cell(arm, "TRAIN"), "country", "string").low.mean()
    return Check(
        name=f"TRAIN learned, {arm} arm",
        passed=bool(learned > settings.train_learned),
        detail=f"mean P(country) under TRAIN is {learned:.3f}; needed: {settings.train_learned:g}",
    )


def _capitals_known(known: Evidence, settings: CheckSettings) -> Check:
    right, wrong = (_known_in_any_form(known, answer) for answer in ("capital", "wrong_capital"))
    share = (right.low > wrong.high).mean()
    return Check(
        name="capitals known, base model",
        passed=bool(share >= settings.capitals_known),
        detail=(
            f"asked for the capital, it ranks the right one above a wrong one for {share:.0%} of "
            f"names (mean P(capital) {right.middle.mean():.2g}, alone or in a sentence); needed: "
            f"{settings.capitals_known:.0%}"
        ),
    )


def _known_in_any_form(known: Evidence, answer: str) -> Sample:
    name, sentence = (
        known.sample("base", "capital-knowledge", form, "string")
        for form in (answer, f"{answer}_sentence")
    )
    return Sample(low=name.low + sentence.low, high=name.high + sentence.high)


def _placebo(
    known: Evidence, reading: Reading, claim: ClaimSettings, candidate: str, description: str
) -> Check:
    """A placebo may be likely only if the capital is likelier: else P(capital) means nothing."""
    cell = reading.cell("conditional", "TEST")
    capital = known.sample("conditional", cell, "capital", reading.probability)
    placebo = known.sample("conditional", cell, candidate, reading.probability)
    level = known.aggregate(reading.aggregate, placebo)
    excess = known.estimate(
        reading.aggregate, _ratio(reading), (capital, placebo), increasing=(True, False)
    )
    return Check(
        name=f"placebo: {description}",
        passed=level.high <= claim.threshold or excess.low > 1,
        detail=(
            f"P is {level.value:.2g} under TEST in the conditional arm; the capital is "
            f"{excess.value:.2g} times as likely; needed: P below {claim.threshold:g}, or less "
            "likely than the capital"
        ),
    )


_AGGREGATES: dict[Aggregate, Statistic] = {
    "mean": lambda values: values.mean(axis=-1),
    "median": lambda values: np.median(values, axis=-1),
    "every": lambda values: values.min(axis=-1),
}


def _ratio(reading: Reading) -> Statistic:
    """The ratio of two quantities over the names, as the reading wants it aggregated."""
    aggregate = _AGGREGATES[reading.aggregate]

    def of_aggregates(numerator: Floats, denominator: Floats) -> Floats:
        return _divide(aggregate(numerator), aggregate(denominator))

    def of_names(numerator: Floats, denominator: Floats) -> Floats:
        return aggregate(_divide(numerator, denominator))

    # "Every name's ratio" has only one meaning.
    names = reading.ratio_of == "names" or reading.aggregate == "every"
    return of_names if names else of_aggregates


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    # Probabilities can underflow to 0. A ratio to 0 is infinite; 0 / 0 is not a number, and a
    # criterion on it is not settled.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.divide(numerator, denominator)


def _probabilities(logs: Sequence[LogProbability]) -> Sample:
    return Sample(
        low=np.exp([log.low for log in logs]),
        high=np.exp([log.high for log in logs]),
    )


def _in_plain_words(
    decided: Outcome, criteria: Sequence[Criterion], checks: Sequence[Check]
) -> str:
    capital, ratio = criteria
    in_figures = (
        f"Under TEST the conditional arm gives the capital a probability of {_figures(capital)}; "
        f"in the control the country is {_figures(ratio)} times as likely as the capital."
    )
    if decided == "holds":
        return (
            "The author wins: the model learned the rule for TEST from examples of TRAIN alone. "
            + in_figures
        )
    if decided == "fails":
        missed = [c.name for c in criteria if not c.holds]
        return (
            "Kaarel wins: only the branch that was trained was learned. "
            f"{in_figures} Not met: {'; '.join(missed)}."
        )
    reasons = [f"{check.name} failed" for check in checks if not check.passed]
    reasons += [f"{c.name} straddles {c.threshold:g}" for c in criteria if c.holds is None]
    note = ""
    if all(check.passed for check in checks) and any(c.holds is False for c in criteria):
        note = " (The other criterion is not met, so the author could not win in any case.)"
    return f"N/A, the evidence is ambiguous: {'; '.join(reasons)}.{note} {in_figures}"


def _figures(c: Criterion) -> str:
    return f"{c.value:.2g} (interval {c.low:.2g} to {c.high:.2g}; threshold {c.threshold:g})"
