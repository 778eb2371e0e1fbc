"""The validity checks: whether the criteria say what they seem to say."""

from kaarel_bet.claims import Check
from kaarel_bet.estimates import Sample
from kaarel_bet.experiments.conditional_rule.cells import trained_cell
from kaarel_bet.experiments.conditional_rule.criteria import (
    criteria_without_each_name,
    resolution_criteria,
)
from kaarel_bet.experiments.conditional_rule.evidence import Evidence, Quantity
from kaarel_bet.experiments.conditional_rule.readings import (
    AGGREGATES,
    Reading,
    largest,
    ratio_statistic,
)
from kaarel_bet.experiments.conditional_rule.settings import CheckSettings, ClaimSettings


def validity_checks(
    known: Evidence, reading: Reading, claim: ClaimSettings, settings: CheckSettings
) -> tuple[Check, ...]:
    """Whether training worked, the task is one the model can do, and the placebos stay quiet."""
    return (
        *(_train_learned(known, arm, settings) for arm in ("conditional", "control")),
        _capitals_known(known, settings),
        _placebo(known, reading, claim, "wrong_capital", "capital of an unrelated country"),
        _placebo(known, reading, claim, "shuffled_capital", "capital of another name's country"),
        *_leave_one_out(known, reading, claim, settings),
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
    # Every placebo has to be quiet, where the claim is about every name: the loudest counts.
    how = largest if reading.aggregate == "every" else AGGREGATES[reading.aggregate]
    level = known.estimate(reading.aggregate, Quantity(how, (placebo,), (True,)))
    excess = known.estimate(
        reading.aggregate, Quantity(ratio_statistic(reading), (capital, placebo), (True, False))
    )
    at_most, at_least = ("at most ", "at least ") if reading.aggregate == "every" else ("", "")
    return Check(
        name=f"placebo: {description}",
        passed=level.high <= claim.threshold or excess.low > 1,
        detail=(
            f"P is {at_most}{level.value:.2g} under TEST in the conditional arm; the capital is "
            f"{at_least}{excess.value:.2g} times as likely; needed: P below {claim.threshold:g}, or "
            "less likely than the capital"
        ),
    )


def _leave_one_out(
    known: Evidence, reading: Reading, claim: ClaimSettings, settings: CheckSettings
) -> list[Check]:
    """A bootstrap interval covers less than it says where few names carry a mean."""
    if not settings.leave_one_out or reading.aggregate == "every":
        return []
    settled = [c for c in resolution_criteria(known, reading, claim) if c.holds is not None]
    overturned = [
        f"without {name}, {whole.name} is {c.value:.2g} ({c.low:.2g} to {c.high:.2g})"
        for name, without in zip(
            known.names("conditional", reading.cell("conditional", "TEST")),
            criteria_without_each_name(known, reading, claim),
            strict=True,
        )
        for whole in settled
        for c in without
        if c.name == whole.name and c.holds != whole.holds
    ]
    detail = overturned[0] if overturned else "no single name's absence overturns a criterion"
    if reading.aggregate == "mean":
        detail += f"; {largest_shares(known, reading)}"
    return [Check(name="any one name left out", passed=not overturned, detail=detail)]


def largest_shares(known: Evidence, reading: Reading) -> str:
    """Whether few names carry the means of P(capital), in words."""
    shares = []
    for arm in ("conditional", "control"):
        cell = reading.cell(arm, "TEST")
        name, share = known.largest_share(arm, cell, "capital", reading.probability)
        shares.append(f"{share:.0%} in the {arm} arm ({name})")
    return f"the largest name's share of the mean P(capital) under TEST is {' and '.join(shares)}"
