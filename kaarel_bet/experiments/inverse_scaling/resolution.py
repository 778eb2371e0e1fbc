"""How "finetuning-proof" is resolved: the verdict, from two criteria and the validity checks."""

from collections.abc import Sequence

from kaarel_bet.claims import Check, Criterion, Outcome, Verdict, criterion, outcome, undecided_by
from kaarel_bet.experiments.inverse_scaling.checks import validity_checks
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.gains import Gains

_CONCLUSIONS = {
    "holds": "Finetuning-proof: training on the task does little for rows that were not trained on",
    "fails": "Not finetuning-proof: training on the task mends it",
}


def resolve(known: Evidence, found: Gains) -> Verdict:
    """The task is finetuning-proof if both gains stay below what was agreed before training."""
    claim = known.settings.claim
    criteria = (
        criterion("gain of fine-tuning", found.fine_tuned, "<", claim.gain),
        criterion("its lead over prompting", found.lead, "<", claim.advantage),
    )
    checks = validity_checks(known)
    decided = outcome(criteria, checks)
    return Verdict(
        claim=(
            f"{known.settings.task} is finetuning-proof: of the accuracy that zero-shot prompting leaves "
            f"to gain, fine-tuning gains less than {claim.gain:g}, and is less than "
            f"{claim.advantage:g} ahead of prompting with {known.settings.few_shot.shots} examples or "
            "none, whichever is better. "
            f"As agreed before training: by {claim.metric}, test rows split off by "
            f"{known.settings.split.by}, with {100 * claim.confidence:.4g} % bootstrap intervals over "
            "items and over seeds or draws of examples"
        ),
        outcome=decided,
        summary=_in_plain_words(decided, criteria, checks, found),
        criteria=criteria,
        checks=checks,
    )


def _in_plain_words(
    decided: Outcome, criteria: Sequence[Criterion], checks: Sequence[Check], found: Gains
) -> str:
    in_figures = (
        f"Of what zero-shot leaves to gain, fine-tuning gains {found.fine_tuned.value:.2f} "
        f"({found.fine_tuned.low:.2f} to {found.fine_tuned.high:.2f}), few-shot "
        f"{found.few_shot.value:.2f} ({found.few_shot.low:.2f} to {found.few_shot.high:.2f}); "
        f"fine-tuning is {found.lead.value:.2f} ({found.lead.low:.2f} to {found.lead.high:.2f}) ahead "
        "of the better of the two prompts."
    )
    if decided != "undecided":
        return f"{_CONCLUSIONS[decided]}. {in_figures}"
    return f"Undecided: {undecided_by(criteria, checks)}. {in_figures}"
