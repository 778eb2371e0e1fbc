"""The names of sets, arms and evaluations, and which arm is asked what."""

from typing import Literal

SetName = Literal["train", "other", "test"]
Kind = Literal["greedy", "samples", "loss", "augmented", "search", "counting", "experts"]

SETS: tuple[SetName, ...] = ("train", "other", "test")

BASE = "base"
PLAIN = "train-plain"
AUGMENTED = "train-augmented"
OTHER = "other-augmented"
COUNTING = "counting"
CONTINUED = "counting-then-train"
TEST_TIME = "test-time"

ON_ALL_SETS = (BASE, PLAIN, AUGMENTED, OTHER, CONTINUED)
"""The arms that are asked the tasks of every set."""

IN_DEPTH = (AUGMENTED, TEST_TIME)
"""The arms that are also asked test tasks under augmentation, and searched."""


def test_time(task: str) -> str:
    """The arm of one test task alone."""
    return f"{TEST_TIME}-{task}"


def system(arm: str) -> str:
    """What the arm belongs to: itself, but all arms of single test tasks are one system."""
    return TEST_TIME if arm.startswith(TEST_TIME) else arm


def evaluation(kind: Kind, part: str) -> str:
    """The evaluation that asks some part of the items in a certain way."""
    return f"{kind}-{part}"


def kind_of(evaluation: str) -> str:
    """In which way an evaluation asks."""
    return evaluation.partition("-")[0]
