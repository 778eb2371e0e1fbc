"""The two criteria of the bet."""

from kaarel_bet.claims import Criterion, criterion
from kaarel_bet.experiments.conditional_rule.evidence import Evidence
from kaarel_bet.experiments.conditional_rule.readings import Reading, ratio_statistic
from kaarel_bet.experiments.conditional_rule.settings import ClaimSettings


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
        ratio_statistic(reading),
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
