"""How a training computes: what asks its model, and adds to its adapter's gradients."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from peft import PeftModel

from backends.local.adapters import DEFAULT_ADAPTER, base_of
from backends.local.engine import Engine, choose_engine
from backends.local.objectives import Loss, rounding
from backends.local.sequences import TokenSequence
from backends.local.settings import PrefixSharing

Result = TypeVar("Result")
LossOf = Callable[[torch.Tensor], Loss]
"""Of sequences' log-probabilities, (targets,)."""


class Passes(Protocol):
    """A model with the adapter that is trained."""

    model: PeftModel
    adapter: str
    """What the model calls it."""
    engine: Engine
    dtype: torch.dtype

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by names that do not depend on what the adapter is called."""
        found = self.model.named_parameters()
        mine = {n: p for n, p in found if f".{self.adapter}." in n}
        return {n.replace(f".{self.adapter}.", f".{DEFAULT_ADAPTER}."): p for n, p in mine.items()}

    def back(self, sequences: Sequence[TokenSequence], loss: LossOf) -> Loss:
        """Adds the loss's gradients to those that the parameters have. Raises what computing does."""
        ...

    def by_itself(self, work: Callable[[], Result]) -> Result:
        """Does what concerns this adapter alone, while nobody else uses the model."""
        ...

    def evaluated(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """The log-probabilities of all targets without noise: (targets,). For use within `by_itself`."""
        self.model.eval()
        with rounding(self.model.device, self.dtype):
            found = self.engine.log_probabilities(sequences)
        self.model.train()
        return found


class Alone(Passes):
    """A model of its own."""

    def __init__(self, model: PeftModel, sharing: PrefixSharing, dtype: torch.dtype) -> None:
        self.model = model
        self.adapter = DEFAULT_ADAPTER
        self.engine = choose_engine(base_of(model.train()), sharing)
        self.dtype = dtype

    def back(self, sequences: Sequence[TokenSequence], loss: LossOf) -> Loss:
        """As `Passes.back`."""
        with rounding(self.model.device, self.dtype):
            found = loss(self.engine.log_probabilities(sequences))
        found.summed.backward()
        return found

    def by_itself(self, work: Callable[[], Result]) -> Result:
        """As `Passes.by_itself`."""
        return work()
