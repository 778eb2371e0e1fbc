"""The validity checks: whether the criteria say what they seem to say."""

from kaarel_bet.claims import Check
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.gains import gain_of
from kaarel_bet.experiments.inverse_scaling.leakage import audit
from kaarel_bet.experiments.inverse_scaling.plan import Run, training_rows


def validity_checks(known: Evidence) -> tuple[Check, ...]:
    """Whether training worked, what it gains comes from the labels, and no test prompt was trained on."""
    checks = [_trained(known), _no_leak(known)]
    if known.settings.fine_tune.placebo:
        checks.append(_placebo(known))
    return tuple(checks)


def _trained(known: Evidence) -> Check:
    """A model that did not even learn its training rows says nothing about the task."""
    settings = known.settings
    arms = [run.arm for run in known.condition("fine_tuned").runs]
    shares = [
        known.correct([Run(arm, training_rows(arm))], settings.claim.metric).low.mean()
        for arm in arms
    ]
    return Check(
        name="training rows learned",
        passed=bool(min(shares) >= settings.checks.trained),
        detail=(
            f"each fine-tuned arm answers at least {min(shares):.0%} of its own training rows right; "
            f"needed: {settings.checks.trained:.0%}"
        ),
    )


def _no_leak(known: Evidence) -> Check:
    leak = audit(known.part("train"), known.part("test"))
    return Check(
        name="no test prompt among the training rows",
        passed=leak.prompt == 0,
        detail=(
            f"{leak.prompt} of {leak.n_test} test prompts are training prompts, {leak.wording} are "
            "modulo numbers; needed: 0 exactly"
        ),
    )


def _placebo(known: Evidence) -> Check:
    gain = gain_of(known, known.condition("placebo"))
    needed = known.settings.claim.gain
    return Check(
        name="placebo: shuffled labels",
        passed=gain.value < needed,
        detail=(
            f"gain {gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f}) of the same rows with labels "
            f"that mean nothing; needed: below {needed:g}"
        ),
    )
