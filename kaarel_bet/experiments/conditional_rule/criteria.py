"""The two criteria of the bet."""

from kaarel_bet.claims import Criterion, criterion
from kaarel_bet.experiments.conditional_rule.evidence import Evidence, Quantity
from kaarel_bet.experiments.conditional_rule.readings import AGGREGATES, Reading, ratio_statistic
from kaarel_bet.experiments.conditional_rule.settings import ClaimSettings

Criteria = tuple[Criterion, Criterion]
_NAMES = (
    "P(capital) under TEST, conditional arm",
    "P(country) / P(capital) under TEST, control arm",
)


def resolution_criteria(known: Evidence, reading: Reading, claim: ClaimSettings) -> Criteria:
    """The two criteria of the bet under a reading of it."""
    capital, ratio = _quantities(known, reading)
    return (
        criterion(_NAMES[0], known.estimate(reading.aggregate, capital), ">", claim.threshold),
        criterion(_NAMES[1], known.estimate(reading.aggregate, ratio), ">", claim.ratio),
    )


def criteria_without_each_name(
    known: Evidence, reading: Reading, claim: ClaimSettings
) -> list[Criteria]:
    """The same without each of the names in turn; not for `every`, where each of them counts."""
    capital, ratio = _quantities(known, reading)
    return [
        (
            criterion(_NAMES[0], without_for_capital, ">", claim.threshold),
            criterion(_NAMES[1], without_for_ratio, ">", claim.ratio),
        )
        for without_for_capital, without_for_ratio in zip(
            known.leave_one_out(capital), known.leave_one_out(ratio), strict=True
        )
    ]


def _quantities(known: Evidence, reading: Reading) -> tuple[Quantity, Quantity]:
    conditional, control = reading.cell("conditional", "TEST"), reading.cell("control", "TEST")
    capital = known.sample("conditional", conditional, "capital", reading.probability)
    control_country = known.sample("control", control, "country", reading.probability)
    control_capital = known.sample("control", control, "capital", reading.probability)
    return (
        Quantity(AGGREGATES[reading.aggregate], (capital,), (True,)),
        Quantity(ratio_statistic(reading), (control_country, control_capital), (True, False)),
    )
