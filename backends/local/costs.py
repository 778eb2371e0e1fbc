"""What work will take here, roughly: seconds and memory, told before any weights are loaded.

Seconds are operations over what matrix products reach on this machine, measured once a process, times the
share of it that is reached in practice; reading the weights from disk comes on top. Mixtures of experts are
counted as if every expert were asked.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from backends.errors import SettingsError
from backends.local.batches import epoch_batches
from backends.local.decoding import MAX_ROWS
from backends.local.model_shape import ModelShape
from backends.local.models import empty_model
from backends.local.placing import n_processes
from backends.local.prefix_tree import tree_size
from backends.local.recomputing import check_recomputing
from backends.local.sequences import Learned, Pair, TokenSequence
from backends.local.settings import LocalSettings
from backends.local.sharding import layers_of
from backends.local.training_noise import training_noise

# Shares of the matrix products' peak: docs/prefix-engine.md, benchmarks/run.py (28-46 %, 71-78 %).
_REACHED_IN_TRAINING = 0.3
_REACHED_IN_SCORING = 0.7
_SECONDS_A_LAYER = 2e-4
"""Of a step that decodes one token: transformers' own code, whatever the size (0.13 ms measured)."""
_PROCESS_BYTES = 1_000_000_000
"""Python, torch, transformers and what oneDNN keeps, on the CPU (of 1.5 to 1.9 GB for 135M parameters)."""
_ACTIVATIONS = 17
"""Numbers that a layer keeps of a token for the backward pass, in widths (Korthikanti et al. 2022,
arXiv:2205.05198, equation 2 without attention's scores)."""


@dataclass(frozen=True)
class Cost:
    """Seconds, and bytes of the device's memory at the most."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Answering:
    """A prompt to be continued: how long it is, and how many texts of how many tokens at the most."""

    prompt: int
    rows: int
    tokens: int


class Costs:
    """Of one model with its settings."""

    def __init__(
        self,
        settings: LocalSettings,
        location: str,
        device: torch.device,
        *,
        training: torch.dtype,
        scoring: torch.dtype,
    ) -> None:
        self._settings = settings
        self._device = device
        self._training = training
        self._scoring = scoring
        model = empty_model(location)
        self._shape = ModelShape.of(model, settings)
        self._count = n_processes(settings, device)
        self._noise = training_noise(model)
        if settings.training.gradient_checkpointing:
            check_recomputing(model)
        if settings.shard != "none":
            layers_of(model)

    def of_training(self, examples: Sequence[Learned], seed: int) -> Cost:
        """All epochs; gradients of weights are the adapter's alone.

        Of pairs, the reference's pass over all of them comes on top.
        """
        chosen = self._settings.training
        self._refuse_noise_in_shards()
        noise = self._settings.lora.dropout > 0 or self._noise
        shares = self._shares_prefixes and not (self._settings.prefix_sharing == "auto" and noise)
        batches = [
            [sequence for i in batch for sequence in examples[i].sequences]
            for batch in epoch_batches(examples, chosen.batch_size, chosen.group_by, seed, 0)
        ]
        nodes = [_nodes(batch, shares=shares) for batch in batches]
        targets = [sum(len(sequence.targets) for sequence in batch) for batch in batches]
        everything = [sequence for example in examples for sequence in example.sequences]
        length = _mean([len(sequence.tokens) for sequence in everything])
        # A pass forward and one backward, and what is forgotten in between once more.
        passes = 3 if chosen.gradient_checkpointing else 2
        per_node = passes * self._operations(length) + 3 * passes * self._shape.adapter
        operations = sum(nodes) * per_node + sum(targets) * 4 * self._shape.head
        shards = self._count if self._settings.shard != "none" else 1
        speed = _REACHED_IN_TRAINING * self._speed(self._training, shards)
        parts = shards * chosen.micro_batches
        memory = self._training_bytes(max(nodes) // parts, max(targets) // parts)
        seconds = chosen.epochs * operations / speed
        if any(isinstance(example, Pair) for example in examples):
            asked = _REACHED_IN_SCORING * self._speed(self._training, shards)
            seconds += self._forward_operations(everything) / asked
        return Cost(seconds, self._on_device(memory, shards))

    def _training_bytes(self, nodes: int, targets: int) -> int:
        """Of a process that computes so many tokens at once, and predicts so many of them."""
        size = self._training.itemsize
        # Weights, gradients and AdamW's two moments are float32.
        states = self._weight_bytes(size) + 4 * 4 * self._shape.adapter
        kept = self._shape.layers * _ACTIVATIONS
        if self._settings.training.gradient_checkpointing:
            kept = self._shape.layers + _ACTIVATIONS  # what each layer is given, and all of one
        activations = nodes * kept * self._shape.width * size
        if self._shares_prefixes:
            activations += nodes * nodes * size  # what each token sees
        return self._base_bytes + states + activations + targets * self._vocabulary_bytes

    def of_scoring(self, sequences: Sequence[TokenSequence]) -> Cost:
        """A whole list of sequences, common prefixes once."""
        if not sequences:
            return Cost(0.0, 0)
        longest = max(len(sequence.tokens) for sequence in sequences)
        n_targets = sum(len(sequence.targets) for sequence in sequences)
        seconds = self._forward_operations(sequences) / self._scoring_speed
        at_once = max(longest, self._settings.scoring.batch_tokens)
        # A stretch of tokens at a time, of which at the most each predicts one.
        kept = at_once * (8 * self._shape.width * self._scoring.itemsize)
        kept += min(n_targets, at_once) * self._vocabulary_bytes + self._cache_bytes(longest)
        return Cost(seconds, self._on_device(self._asked_bytes + kept, self._count))

    def of_answering(self, prompts: Sequence[TokenSequence], asked: Sequence[Answering]) -> Cost:
        """Prompts, and the texts after them token by token, none of which ends early."""
        if not asked:
            return Cost(0.0, 0)
        begun = self.of_scoring(prompts)
        rows = sorted((one.tokens, one.prompt) for one in asked for _ in range(one.rows))
        seconds, memory = begun.seconds, begun.memory_bytes
        for start in range(0, len(rows), MAX_ROWS):
            batch = rows[start : start + MAX_ROWS]
            seconds += batch[-1][0] * self._step_seconds(len(batch)) / self._devices(self._count)
            positions = len(batch) * max(tokens + prompt for tokens, prompt in batch)
            needed = self._asked_bytes + self._cache_bytes(positions)
            memory = max(memory, self._on_device(needed, self._count))
        return Cost(seconds, memory)

    def _step_seconds(self, rows: int) -> float:
        """One more token of each row: the weights are read once, or multiplied, whichever takes longer."""
        weights = (self._shape.body + self._shape.head) * self._scoring.itemsize
        read = weights / _reading_speed(self._device)
        multiplied = rows * 2 * (self._shape.body + self._shape.head) / self._scoring_speed
        return self._shape.layers * _SECONDS_A_LAYER + max(read, multiplied)

    def _forward_operations(self, sequences: Sequence[TokenSequence]) -> float:
        """Of a list of sequences and the predictions of their targets, common prefixes once."""
        length = _mean([len(sequence.tokens) for sequence in sequences])
        n_targets = sum(len(sequence.targets) for sequence in sequences)
        nodes = _nodes(sequences, shares=self._shares_prefixes)
        return nodes * self._operations(length) + n_targets * 2 * self._shape.head

    def _operations(self, length: float) -> float:
        """Of one token's forward pass in sequences of that length, without the projection."""
        return 2 * self._shape.body + 2 * self._shape.layers * self._shape.width * length

    @property
    def _scoring_speed(self) -> float:
        return _REACHED_IN_SCORING * self._speed(self._scoring, self._count)

    def _speed(self, dtype: torch.dtype, processes: int) -> float:
        """Of products, of so many processes together; what they tell each other is not counted."""
        return self._devices(processes) * _product_speed(self._device, dtype)

    def _devices(self, processes: int) -> int:
        """Processes on the CPU have it in common."""
        return 1 if self._device.type == "cpu" else processes

    def _on_device(self, memory: int, processes: int) -> int:
        """The most that one device must have, of what each process needs."""
        return memory * processes if self._device.type == "cpu" else memory

    def _refuse_noise_in_shards(self) -> None:
        if self._settings.shard == "none" or not self._noise:
            return
        name, amount = next(iter(self._noise.items()))
        raise SettingsError(
            f"local.shard: the model's own config asks for {name} {amount:g} in training, of which each "
            "process would draw its own; use none"
        )

    @property
    def _shares_prefixes(self) -> bool:
        return self._settings.prefix_sharing != "off"

    @property
    def _base_bytes(self) -> int:
        return _PROCESS_BYTES if self._device.type == "cpu" else 0

    @property
    def _asked_bytes(self) -> int:
        size = self._scoring.itemsize
        return self._base_bytes + self._weight_bytes(size) + self._shape.adapter * size

    def _weight_bytes(self, itemsize: int) -> int:
        return self._shape.weight_bytes(itemsize, self._settings, self._count, self._device)

    @property
    def _vocabulary_bytes(self) -> int:
        """Of one position's prediction: logits, their logarithms and their gradient in float32."""
        return 3 * 4 * self._shape.head // self._shape.width

    def _cache_bytes(self, positions: int) -> int:
        return positions * 2 * self._shape.layers * self._shape.key_width * self._scoring.itemsize


def _nodes(sequences: Sequence[TokenSequence], *, shares: bool) -> int:
    """How many tokens are computed."""
    return tree_size(sequences) if shares else sum(s.targets[-1] for s in sequences)


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths)


@functools.cache
def _product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in products of large square matrices: the best of a fraction of a second.

    On the CPU that of one thread times their number: threads that wait for each other are slowed down
    many times by any other program.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    size = 512 if device.type == "cpu" else 4096
    one, other = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        return threads * 2 * size**3 / _quickest(lambda: (one @ other)[0, 0].item())
    finally:
        if device.type == "cpu":
            torch.set_num_threads(threads)


@functools.cache
def _reading_speed(device: torch.device) -> float:
    """Bytes a second that a product of a matrix too large for caches with a vector reads."""
    matrix = torch.ones(4096, 8192, device=device)
    vector = torch.ones(8192, device=device)
    return matrix.nbytes / _quickest(lambda: (matrix @ vector)[0].item())


def _quickest(work: Callable[[], object], seconds: float = 0.15) -> float:
    work()
    began, best = time.monotonic(), math.inf
    while time.monotonic() - began < seconds:
        started = time.monotonic()
        work()
        best = min(best, time.monotonic() - started)
    return best
