"""The validity checks: whether the criteria say what they seem to say."""

from dataclasses import dataclass

from kaarel_bet.claims import Check
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.gains import gain_of
from kaarel_bet.experiments.inverse_scaling.leakage import audit
from kaarel_bet.experiments.inverse_scaling.plan import BASE, Run, training_rows


def validity_checks(known: Evidence) -> tuple[Check, ...]:
    """Whether there was something to gain, training worked and its gain comes from the labels.

    And whether no test prompt was trained on.
    """
    checks = [_something_to_gain(known), _trained(known), _no_leak(known)]
    if known.settings.fine_tune.placebo:
        checks.append(_placebo(known))
    return tuple(checks)


def _something_to_gain(known: Evidence) -> Check:
    """Shares of next to nothing say nothing, and a task that was never hard is not proof."""
    zero = known.accuracy(known.condition("zero_shot").runs)
    left, needed = 1 - zero.high, known.settings.checks.left_to_gain
    return Check(
        name="zero-shot leaves something to gain",
        passed=left > needed,
        detail=(
            f"zero-shot leaves {1 - zero.value:.1%} ({left:.1%} to {1 - zero.low:.1%}) of the test "
            f"rows wrong; needed: surely more than {needed:.0%}"
        ),
    )


def _trained(known: Evidence) -> Check:
    """A model that did not even learn its training rows says nothing about the task."""
    needed = known.settings.checks.trained
    learned = [_learned(known, run.arm) for run in known.condition("fine_tuned").runs]
    least = min(learned, key=lambda one: one.share)
    return Check(
        name="training rows learned",
        passed=least.share >= needed,
        detail=(
            f"of what the base model leaves to gain on its own training rows, each fine-tuned arm "
            f"gains at least {least.share:.0%} ({least.before:.0%} right before, {least.after:.0%} "
            f"after); needed: {needed:.0%}"
        ),
    )


@dataclass(frozen=True)
class _Learned:
    """Accuracies of the base model and of an arm on the arm's training rows, and the share gained."""

    before: float
    after: float

    @property
    def share(self) -> float:
        """Of what the base model leaves to learn; where that is nothing, whether it is still there."""
        if self.before == 1:
            return float(self.after == 1)
        return (self.after - self.before) / (1 - self.before)


def _learned(known: Evidence, arm: str) -> _Learned:
    """Answers that are not settled count against the arm."""
    metric = known.settings.claim.metric
    before, after = (
        known.correct([Run(asked, training_rows(arm))], metric) for asked in (BASE, arm)
    )
    return _Learned(float(before.high.mean()), float(after.low.mean()))


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
        name="placebo: random labels",
        passed=gain.value < needed,
        detail=(
            f"gain {gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f}) of the same rows with labels "
            f"that mean nothing; needed: below {needed:g}"
        ),
    )
