"""The validity checks: whether the criteria say what they seem to say."""

import math

from kaarel_bet.claims import Check
from kaarel_bet.experiments.arc import plan
from kaarel_bet.experiments.arc.leakage import shared
from kaarel_bet.experiments.arc.measures import Measures
from kaarel_bet.experiments.arc.plan import SetName


def learned(measured: Measures, arm: str, part: SetName) -> Check:
    """Training that left the loss on its own tasks where it was says nothing about others."""
    needed = measured.known.settings.checks.learned
    # Where scores are intervals: the least that it may have been, and the most that it may be.
    before = float(measured.losses(plan.BASE, [part]).low.mean())
    after = float(measured.losses(arm, [part]).high.mean())
    return Check(
        name=f"{arm} learned its tasks",
        passed=math.isfinite(after) and after <= needed * before,
        detail=(
            f"loss on them {after:.3f} nats a token, of the base model {before:.3f}; needed: at most "
            f"{needed:g} of it"
        ),
    )


def no_shared_pairs(measured: Measures, one: SetName, other: SetName) -> Check:
    """Tasks that share a pair with a training task, however turned or coloured, are not unseen."""
    sets = measured.known.settings.sets
    tasks = [
        list({item.task.id: item.task for item in measured.known.of(part)}.values())
        for part in (one, other)
    ]
    found = shared(*tasks)
    allowed = sets.leakage == "allow"
    return Check(
        name=f"no pair both in {one} and {other}",
        passed=allowed or not found,
        detail=(
            f"{len({leak.other for leak in found})} tasks of {other} share a pair, modulo augmentation, "
            f"with a task of {one}; needed: 0" + ("; allowed by the settings" if allowed else "")
        ),
    )


def counting_learned(measured: Measures) -> Check:
    """A model that did not learn to count can't show what it is good for."""
    known = measured.known
    needed = known.settings.checks.counted
    before, after = (known.counted(arm) for arm in (plan.BASE, plan.COUNTING))
    return Check(
        name="counting learned",
        passed=after >= needed,
        detail=(
            f"{after:.0%} of {len(known.counting)} new questions answered right, by the base model "
            f"{before:.0%}; needed: {needed:.0%}"
        ),
    )


def not_known_before(measured: Measures, needed: float) -> Check:
    """What the base model solves need not be memorised."""
    k = measured.known.settings.prediction.k
    before = measured.share(plan.BASE, ["train"], measured.pass_at_k)
    return Check(
        name="not known before",
        passed=before.value <= needed,
        detail=f"pass@{k} of the base model {before.value:.2f}; needed: at most {needed:g}",
    )
