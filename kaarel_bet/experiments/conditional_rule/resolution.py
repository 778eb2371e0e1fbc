"""How the bet is resolved: the verdict, from the two criteria and the validity checks.

The author wins if P(capital | TEST) exceeds the threshold in the conditional arm and
P(country) / P(capital) under TEST exceeds the ratio in the control; Kaarel wins otherwise; neither
does when a criterion's interval straddles its threshold or a check fails.
"""

from collections.abc import Sequence

from kaarel_bet.claims import Check, Criterion, Outcome, Verdict, outcome, undecided_by
from kaarel_bet.experiments.conditional_rule.checks import validity_checks
from kaarel_bet.experiments.conditional_rule.criteria import resolution_criteria
from kaarel_bet.experiments.conditional_rule.evidence import evidence
from kaarel_bet.experiments.conditional_rule.readings import agreed_reading
from kaarel_bet.experiments.conditional_rule.settings import CheckSettings, ClaimSettings
from kaarel_bet.experiments.interface import Scores


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
            f"before training: {reading.in_words()}; {known.interval_in_words(reading.aggregate)}"
        ),
        outcome=decided,
        summary=_in_plain_words(decided, criteria, found),
        criteria=criteria,
        checks=found,
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
        why = (
            "the model that saw the rule did not learn it, only the branch that was trained"
            if not capital.holds
            else "the control, which never saw the rule for TEST, does not prefer the country by "
            "enough, so that the capital can't be put down to the rule"
        )
        return f"Kaarel wins: {why}. {in_figures} Not met: {'; '.join(missed)}."
    note = ""
    if all(check.passed for check in checks) and any(c.holds is False for c in criteria):
        note = " (The other criterion is not met, so the author could not win in any case.)"
    return f"N/A, the evidence is ambiguous: {undecided_by(criteria, checks)}.{note} {in_figures}"


def _figures(c: Criterion) -> str:
    return f"{c.value:.2g} (interval {c.low:.2g} to {c.high:.2g}; threshold {c.threshold:g})"
