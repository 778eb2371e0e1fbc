"""The five claims and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from kaarel_bet.claims import Check, Criterion, Verdict, criterion, outcome, undecided_by
from kaarel_bet.experiments.arc import plan
from kaarel_bet.experiments.arc.checks import (
    counting_learned,
    learned,
    no_shared_pairs,
    not_known_before,
)
from kaarel_bet.experiments.arc.measures import Measures


@dataclass(frozen=True)
class Claim:
    """A claim and the evidence for it. `yes` and `no` say in plain words what was found."""

    text: str
    yes: str
    no: str
    criteria: tuple[Criterion, ...]
    checks: tuple[Check, ...]

    def verdict(self) -> Verdict:
        """What became of it."""
        decided = outcome(self.criteria, self.checks)
        words = {
            "holds": self.yes,
            "fails": self.no,
            "undecided": f"Undecided: {undecided_by(self.criteria, self.checks)}",
        }[decided]
        return Verdict(
            claim=self.text,
            outcome=decided,
            summary=f"{words}. {_figures(self.criteria)}",
            criteria=self.criteria,
            checks=self.checks,
        )


def _figures(criteria: Sequence[Criterion]) -> str:
    found = (f"{c.name}: {c.value:.2f} ({c.low:.2f} to {c.high:.2f})" for c in criteria)
    return "; ".join(found) + "."


def claims(measured: Measures) -> list[Claim]:
    """All five, in the order of the questions."""
    return [
        _memorised(measured),
        _transfers(measured),
        _helps_the_test(measured),
        _counting_helps(measured),
        _augmentation_helps(measured),
    ]


def _memorised(measured: Measures) -> Claim:
    needed = measured.known.settings.claim.memorised
    k = measured.known.settings.prediction.k
    share = measured.share(plan.PLAIN, ["train"], measured.pass_at_k)
    return Claim(
        f"The training set can be memorised: fine-tuned on the tasks as they are, pass@{k} on them exceeds "
        f"{needed:g}",
        "The training set can be memorised",
        "The training set was not memorised",
        (criterion(f"pass@{k} on the training set", share, ">", needed),),
        (not_known_before(measured, needed),),
    )


def _transfers(measured: Measures) -> Claim:
    k = measured.known.settings.prediction.k
    there = measured.gain(plan.AUGMENTED, plan.BASE, ["other"], measured.pass_at_k)
    back = measured.gain(plan.OTHER, plan.BASE, ["train"], measured.pass_at_k)
    return Claim(
        f"Training on one set helps the other, in both directions: pass@{k} gains over the base model",
        "Training on one set helps the other, in both directions",
        "Training on one set does not help the other in both directions",
        (
            criterion("gain on the other set by the training set", there, ">", 0),
            criterion("gain on the training set by the other set", back, ">", 0),
        ),
        (
            no_shared_pairs(measured, "train", "other"),
            learned(measured, plan.AUGMENTED, "train"),
            learned(measured, plan.OTHER, "other"),
        ),
    )


def _helps_the_test(measured: Measures) -> Claim:
    k = measured.known.settings.prediction.k
    gain = measured.gain(plan.AUGMENTED, plan.BASE, ["test"], measured.pass_at_k)
    return Claim(
        f"Training helps the held-out test: pass@{k} gains over the base model",
        "Training helps the held-out test",
        "Training does not help the held-out test",
        (criterion("gain on the test set", gain, ">", 0),),
        (
            no_shared_pairs(measured, "train", "test"),
            learned(measured, plan.AUGMENTED, "train"),
        ),
    )


def _counting_helps(measured: Measures) -> Claim:
    k = measured.known.settings.prediction.k
    unseen: tuple[plan.SetName, ...] = ("other", "test")
    gain = measured.gain(plan.CONTINUED, plan.AUGMENTED, unseen, measured.pass_at_k)
    return Claim(
        f"Starting from a model that learned to count helps: pass@{k} on the tasks not trained on gains "
        "over the same training from the base model",
        "Starting from counting helps",
        "Starting from counting does not help",
        (criterion("gain on the other and the test set", gain, ">", 0),),
        (
            counting_learned(measured),
            no_shared_pairs(measured, "train", "other"),
            no_shared_pairs(measured, "train", "test"),
            learned(measured, plan.CONTINUED, "train"),
        ),
    )


def _augmentation_helps(measured: Measures) -> Claim:
    change = measured.loss_gain(plan.AUGMENTED, plan.PLAIN, ["other"])
    return Claim(
        "Augmentation lowers the validation loss: after as many examples, the right answers of the other "
        "set have a lower loss (nats a token, a mean over tasks) than without augmentation",
        "Augmentation lowers the validation loss",
        "Augmentation does not lower the validation loss",
        (criterion("change of the validation loss", change, "<", 0),),
        (
            no_shared_pairs(measured, "train", "other"),
            learned(measured, plan.PLAIN, "train"),
            learned(measured, plan.AUGMENTED, "train"),
        ),
    )
