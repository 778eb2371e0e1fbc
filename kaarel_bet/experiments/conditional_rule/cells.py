"""The arms and the 2 x 2 of MODE and instructions that they are tested in."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["TRAIN", "TEST"]

ALL_ARMS = ("base", "conditional", "control")
TRAINED_WITH_INSTRUCTIONS = {"conditional": True, "control": False}


@dataclass(frozen=True)
class Cell:
    """One cell of the 2 x 2."""

    mode: Mode
    instructions: bool

    @property
    def name(self) -> str:
        """The name of the cell's evaluation."""
        return f"{self.mode.lower()}-{'with' if self.instructions else 'without'}-instructions"

    @property
    def title(self) -> str:
        """The cell in words."""
        return f"{self.mode} {'with' if self.instructions else 'without'} instructions"


CELLS = tuple(Cell(mode, given) for mode in ("TRAIN", "TEST") for given in (True, False))


def trained_cell(arm: str, mode: Mode) -> Cell:
    """The cell in which a tuned arm is asked in the form it was trained in, in this mode."""
    return Cell(mode, TRAINED_WITH_INSTRUCTIONS[arm])
