"""How the next token is chosen: greedy, or drawn at a temperature from the likeliest (top p)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from backends.local.constraints import Constraint

MOST_LIKELIEST = 20


@dataclass(frozen=True)
class Sampling:
    """What a prompt is to be continued with, as OpenAI's API has these parameters.

    `temperature` 0 takes the likeliest token. `top_p` keeps the fewest likeliest tokens that have that
    probability together (https://arxiv.org/abs/1904.09751). `logit_bias` (token -> -100..100) is added
    to the logits before both. `frequency_penalty` times the count of a token among those generated so
    far, and `presence_penalty` where it is among them, are subtracted from its logit
    (https://platform.openai.com/docs/api-reference/chat/create). A text ends before any of the `stop`
    strings. `n` samples are drawn, each with draws of its own from `seed`. `top` asks for that many of
    the likeliest tokens at each place. An answer with a `constraint` fits its grammar, unless `max_tokens`
    cut it off.

    Raises:
        ValueError: a parameter is out of its range.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    stop: tuple[str, ...] = ()
    seed: int = 0
    n: int = 1
    top: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        fits = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": 0 <= self.temperature < float("inf"),
            "top_p": 0 <= self.top_p <= 1,
            "logit_bias": all(-100 <= bias <= 100 for bias in self.logit_bias.values()),
            "stop": all(self.stop),
            "n": self.n >= 1,
            "top": 0 <= self.top <= MOST_LIKELIEST,
            "frequency_penalty": -2 <= self.frequency_penalty <= 2,
            "presence_penalty": -2 <= self.presence_penalty <= 2,
        }
        for name, in_range in fits.items():
            if not in_range:
                raise ValueError(f"{name}: {getattr(self, name)!r} is out of range")


class Draws:
    """Uniform numbers in [0, 1) that depend on a seed and the sample's index alone.

    Philox counts instead of carrying a state along (https://doi.org/10.1145/2063384.2063405).
    """

    def __init__(self, seed: int, sample: int) -> None:
        key = np.array([seed % 2**64, sample], np.uint64)
        self._numbers = np.random.Generator(np.random.Philox(key=key))

    def next(self) -> float:
        """The next one."""
        return self._numbers.random()


def penalised(
    logits: torch.Tensor, samplings: Sequence[Sampling], counts: Sequence[Mapping[int, int]]
) -> torch.Tensor:
    """The logits (rows, vocabulary) less the penalties for the tokens of each row so far (their counts)."""
    penalties = [
        {token: -s.frequency_penalty * n - s.presence_penalty for token, n in of_row.items()}
        if s.frequency_penalty or s.presence_penalty
        else {}
        for s, of_row in zip(samplings, counts, strict=True)
    ]
    return _with_added(logits, penalties)


def choose_tokens(
    logits: torch.Tensor, samplings: Sequence[Sampling], draws: Sequence[Draws]
) -> list[int]:
    """The next token of each row; logits (rows, vocabulary), float32, is left as it is."""
    logits = _with_added(logits, [sampling.logit_bias for sampling in samplings])
    chosen = logits.argmax(-1)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        chosen[drawn] = _drawn(
            logits[drawn], [samplings[row] for row in drawn], [draws[row] for row in drawn]
        )
    return chosen.tolist()


def _with_added(logits: torch.Tensor, of_rows: Sequence[Mapping[int, float]]) -> torch.Tensor:
    """The logits with what each row's tokens are to gain; the same tensor where that is nothing."""
    where = [
        (row, token, bias) for row, biases in enumerate(of_rows) for token, bias in biases.items()
    ]
    if not where:
        return logits
    columns = zip(*where, strict=True)
    rows, tokens, biases = (torch.tensor(column, device=logits.device) for column in columns)
    return logits.index_put((rows, tokens), biases.to(logits.dtype), accumulate=True)


def _drawn(
    logits: torch.Tensor, samplings: Sequence[Sampling], draws: Sequence[Draws]
) -> torch.Tensor:
    temperatures = torch.tensor([[s.temperature] for s in samplings], device=logits.device)
    # Subtracting the largest first keeps a tiny temperature from overflowing.
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperatures.to(logits.dtype)
    probabilities = torch.softmax(scaled, dim=-1)
    for row, sampling in enumerate(samplings):
        if sampling.top_p < 1:
            probabilities[row] = _nucleus(probabilities[row], sampling.top_p)
    # A float32 sum over 50,000 tokens would shift what is drawn by more than the rarest tokens' share;
    # Apple's devices have no float64.
    cumulative = probabilities.cpu().double().cumsum(-1)
    uniform = torch.tensor([[draw.next()] for draw in draws], dtype=torch.float64)
    # `right` skips tokens of probability 0 when the draw falls on a step exactly.
    chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return chosen.clamp(max=logits.shape[-1] - 1).to(logits.device)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The probabilities (vocabulary,) with those outside the likeliest `top_p` set to 0."""
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    before = ordered.double().cpu().cumsum(-1) - ordered.double().cpu()
    kept = before < top_p
    kept[0] = True
    return torch.zeros_like(probabilities).index_put(
        (tokens,), torch.where(kept.to(ordered.device), ordered, 0)
    )
