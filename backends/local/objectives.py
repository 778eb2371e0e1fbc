"""What a training minimises: cross-entropy of examples, or DPO's loss of preferences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch.nn.functional import logsigmoid

from backends.data import Rewards
from backends.local.engine import Engine
from backends.local.sequences import Pair, TokenSequence

Example = TypeVar("Example", contravariant=True)


@dataclass(frozen=True)
class Loss:
    """A loss summed over some examples: a scalar with gradients.

    `rewards`, of preferences, are sums over pairs: (3,), as in `Rewards`.
    """

    summed: torch.Tensor
    rewards: torch.Tensor | None = None


class Objective(Protocol, Generic[Example]):
    """Sums that add up over the parts of a batch, and what to divide them by."""

    def count(self, examples: Sequence[Example]) -> int:
        """Over how many the loss is a mean."""
        ...

    def sequences(self, examples: Sequence[Example]) -> Sequence[TokenSequence]:
        """Those whose log-probabilities the loss is made of."""
        ...

    def loss(self, examples: Sequence[Example], log_probabilities: torch.Tensor) -> Loss:
        """The loss, in nats, summed over those; of their sequences' targets, in order: (targets,)."""
        ...


class CrossEntropy(Objective[TokenSequence]):
    """Of loss-bearing tokens."""

    def count(self, examples: Sequence[TokenSequence]) -> int:
        """The tokens."""
        return sum(len(example.targets) for example in examples)

    def sequences(self, examples: Sequence[TokenSequence]) -> Sequence[TokenSequence]:
        """The examples."""
        return examples

    def loss(self, examples: Sequence[TokenSequence], log_probabilities: torch.Tensor) -> Loss:
        """Negative log-probabilities, summed."""
        return Loss(-log_probabilities.sum())


class DirectPreference(Objective[Pair]):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    The prompt that both answers share is computed once where the engine shares prefixes.
    """

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def count(self, examples: Sequence[Pair]) -> int:
        """The pairs."""
        return len(examples)

    def sequences(self, examples: Sequence[Pair]) -> Sequence[TokenSequence]:
        """Both answers of each."""
        return [sequence for pair in examples for sequence in pair.sequences]

    def loss(self, examples: Sequence[Pair], log_probabilities: torch.Tensor) -> Loss:
        """-log sigmoid of how much further the preferred answer's reward is up, summed over pairs."""
        lengths = [len(sequence.targets) for sequence in self.sequences(examples)]
        parts = log_probabilities.split(lengths)
        answers = torch.stack([part.sum() for part in parts]).view(-1, 2)
        reference = answers.new_tensor([pair.reference for pair in examples])
        rewards = self._beta * (answers - reference)
        chosen, rejected = rewards.unbind(dim=1)
        seen = torch.stack([chosen, rejected, (chosen > rejected).float()]).detach()
        return Loss(-logsigmoid(chosen - rejected).sum(), seen.sum(dim=1))


def rewards_of(sums: torch.Tensor, n_pairs: int) -> Rewards:
    """The means over pairs of what `Loss.rewards` sums up."""
    chosen, rejected, accuracy = (sums / n_pairs).tolist()
    return Rewards(chosen=chosen, rejected=rejected, accuracy=accuracy)


def with_reference(engine: Engine, pairs: Sequence[Pair], batch_tokens: int) -> list[Pair]:
    """The pairs with what the model, as it is now, makes of their answers.

    Over the whole list, so that a prefix that many prompts share is computed once. Raises as
    `Engine.stream`.
    """
    sequences = [sequence for pair in pairs for sequence in pair.sequences]
    found = [0.0] * len(sequences)
    for batch in engine.stream(sequences, batch_tokens):
        for index, scores in batch:
            found[index] = sum(score.log_probability for score in scores)
    answers = zip(found[::2], found[1::2], strict=True)
    return [replace(pair, reference=each) for pair, each in zip(pairs, answers, strict=True)]


def rounding(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """In which a model that is trained in this dtype runs.

    The adapter's master weights stay float32; autocast rounds them for each multiplication.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
