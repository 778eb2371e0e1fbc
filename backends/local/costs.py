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
from transformers import PreTrainedModel

from backends.local.batches import epoch_batches
from backends.local.decoding import MAX_ROWS
from backends.local.models import empty_model
from backends.local.prefix_tree import tree_size
from backends.local.sequences import Learned, Pair, TokenSequence
from backends.local.settings import LocalSettings
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
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._layers: int = config.num_hidden_layers
        self._width: int = config.hidden_size
        self._key_width: int = (getattr(config, "num_key_value_heads", None) or heads) * head_width
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        self._head = config.vocab_size * self._width
        """Of the projection to the vocabulary, which only some positions need."""
        tied = bool(getattr(config, "tie_word_embeddings", False))
        self._body = self._parameters - self._head * (1 if tied else 2)
        self._adapter = _adapter_parameters(model, settings)
        self._noise = bool(training_noise(model))

    def of_training(self, examples: Sequence[Learned], seed: int) -> Cost:
        """All epochs; gradients of weights are the adapter's alone.

        Of pairs, the reference's pass over all of them comes on top.
        """
        chosen = self._settings.training
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
        per_node = 2 * self._operations(length) + 6 * self._adapter
        operations = sum(nodes) * per_node + sum(targets) * 4 * self._head
        speed = _REACHED_IN_TRAINING * _product_speed(self._device, self._training)
        size = self._training.itemsize
        # Weights, gradients and AdamW's two moments are float32.
        states = self._parameters * size + 4 * 4 * self._adapter
        kept = max(nodes) * self._layers * self._width * _ACTIVATIONS * size
        kept += max(targets) * self._vocabulary_bytes
        memory = self._base_bytes + states + kept // chosen.micro_batches
        seconds = chosen.epochs * operations / speed
        if any(isinstance(example, Pair) for example in examples):
            asked = _REACHED_IN_SCORING * _product_speed(self._device, self._training)
            seconds += self._forward_operations(everything) / asked
        return Cost(seconds, memory)

    def of_scoring(self, sequences: Sequence[TokenSequence]) -> Cost:
        """A whole list of sequences, common prefixes once."""
        if not sequences:
            return Cost(0.0, 0)
        longest = max(len(sequence.tokens) for sequence in sequences)
        n_targets = sum(len(sequence.targets) for sequence in sequences)
        seconds = self._forward_operations(sequences) / self._scoring_speed
        at_once = max(longest, self._settings.scoring.batch_tokens)
        # A stretch of tokens at a time, of which at the most each predicts one.
        kept = at_once * (8 * self._width * self._scoring.itemsize)
        kept += min(n_targets, at_once) * self._vocabulary_bytes + self._cache_bytes(longest)
        return Cost(seconds, self._asked_bytes + kept)

    def of_answering(self, prompts: Sequence[TokenSequence], asked: Sequence[Answering]) -> Cost:
        """Prompts, and the texts after them token by token, none of which ends early."""
        if not asked:
            return Cost(0.0, 0)
        begun = self.of_scoring(prompts)
        rows = sorted((one.tokens, one.prompt) for one in asked for _ in range(one.rows))
        seconds, memory = begun.seconds, begun.memory_bytes
        for start in range(0, len(rows), MAX_ROWS):
            batch = rows[start : start + MAX_ROWS]
            seconds += batch[-1][0] * self._step_seconds(len(batch))
            positions = len(batch) * max(tokens + prompt for tokens, prompt in batch)
            memory = max(memory, self._asked_bytes + self._cache_bytes(positions))
        return Cost(seconds, memory)

    def _step_seconds(self, rows: int) -> float:
        """One more token of each row: the weights are read once, or multiplied, whichever takes longer."""
        weights = (self._body + self._head) * self._scoring.itemsize
        read = weights / _reading_speed(self._device)
        multiplied = rows * 2 * (self._body + self._head) / self._scoring_speed
        return self._layers * _SECONDS_A_LAYER + max(read, multiplied)

    def _forward_operations(self, sequences: Sequence[TokenSequence]) -> float:
        """Of a list of sequences and the predictions of their targets, common prefixes once."""
        length = _mean([len(sequence.tokens) for sequence in sequences])
        n_targets = sum(len(sequence.targets) for sequence in sequences)
        nodes = _nodes(sequences, shares=self._shares_prefixes)
        return nodes * self._operations(length) + n_targets * 2 * self._head

    def _operations(self, length: float) -> float:
        """Of one token's forward pass in sequences of that length, without the projection."""
        return 2 * self._body + 2 * self._layers * self._width * length

    @property
    def _scoring_speed(self) -> float:
        return _REACHED_IN_SCORING * _product_speed(self._device, self._scoring)

    @property
    def _shares_prefixes(self) -> bool:
        return self._settings.prefix_sharing != "off"

    @property
    def _base_bytes(self) -> int:
        return _PROCESS_BYTES if self._device.type == "cpu" else 0

    @property
    def _asked_bytes(self) -> int:
        weights = (self._parameters + self._adapter) * self._scoring.itemsize
        return self._base_bytes + weights

    @property
    def _vocabulary_bytes(self) -> int:
        """Of one position's prediction: logits, their logarithms and their gradient in float32."""
        return 3 * 4 * self._head // self._width

    def _cache_bytes(self, positions: int) -> int:
        return positions * 2 * self._layers * self._key_width * self._scoring.itemsize


def _nodes(sequences: Sequence[TokenSequence], *, shares: bool) -> int:
    """How many tokens are computed."""
    return tree_size(sequences) if shares else sum(s.targets[-1] for s in sequences)


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths)


def _adapter_parameters(model: PreTrainedModel, settings: LocalSettings) -> int:
    targets = settings.lora.target_modules
    head = model.get_output_embeddings()
    sides = 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
            continue
        if targets == "all-linear":
            chosen = not isinstance(module, torch.nn.Embedding) and module is not head
        else:
            chosen = name.endswith(targets)
        sides += sum(weight.shape) if chosen else 0
    return settings.lora.rank * sides


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
