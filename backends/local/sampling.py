"""How the next token is chosen: greedy, or drawn at a temperature from the likeliest (top p)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from backends.local.constraints import Constraint

MOST_LIKELIEST = 20
_RUN = 256


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
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    greedy = [row for row, sampling in enumerate(samplings) if sampling.temperature == 0]
    chosen: dict[int, int] = {}
    if greedy:
        chosen |= zip(greedy, _likeliest(_rows(logits, greedy)).tolist(), strict=True)
    if drawn:
        tokens = _drawn(
            _rows(logits, drawn), [samplings[row] for row in drawn], [draws[row] for row in drawn]
        )
        chosen |= zip(drawn, tokens.tolist(), strict=True)
    return [chosen[row] for row in range(len(samplings))]


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first token of the highest logit in each row (rows, vocabulary): (rows,).

    First the run of tokens: on CPUs the largest number of a row is found ten times faster than its place.
    """
    runs = _in_runs(logits, -torch.inf)
    run = runs.amax(-1).argmax(-1)
    each = torch.arange(len(logits), device=logits.device)
    return run * _RUN + runs[each, run].argmax(-1)


def _in_runs(of_tokens: torch.Tensor, missing: float) -> torch.Tensor:
    """(rows, vocabulary) as (rows, runs, tokens), the last run filled up with what is missing."""
    rows, n_tokens = of_tokens.shape
    # Padding by nothing would be a copy.
    if n_tokens % _RUN:
        of_tokens = torch.nn.functional.pad(of_tokens, (0, -n_tokens % _RUN), value=missing)
    return of_tokens.reshape(rows, -1, _RUN)


def _rows(logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """These rows, ascending; the same tensor where they are all."""
    return logits if len(rows) == len(logits) else logits[rows]


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
    temperatures = [[sampling.temperature] for sampling in samplings]
    if any(temperature != 1 for (temperature,) in temperatures):
        # Subtracting the largest first keeps a tiny temperature from overflowing.
        scaled = logits - logits.amax(-1, keepdim=True)
        logits = scaled / torch.tensor(temperatures, dtype=logits.dtype, device=logits.device)
    probabilities = torch.softmax(logits, dim=-1)
    if probabilities.device.type == "mps":  # Apple's devices have no float64
        probabilities = probabilities.cpu()
    narrowed = [row for row, sampling in enumerate(samplings) if sampling.top_p < 1]
    if narrowed:
        top_ps = [samplings[row].top_p for row in narrowed]
        probabilities[narrowed] = _nucleus(probabilities[narrowed], top_ps)
    uniform = torch.tensor([[draw.next()] for draw in draws], dtype=torch.float64)
    return _inverted(probabilities, uniform.to(probabilities.device))


def _inverted(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The tokens (rows,) in whose share of the cumulative probability the numbers (rows, 1) lie.

    Added up in float64: in float32 50,000 tokens would shift what is drawn by more than the rarest
    tokens' share. The runs of tokens come first, so that one run in all has to be added up by tokens.
    """
    runs = _in_runs(probabilities, 0)
    totals = runs.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted = uniform * totals[:, -1:]
    run = _first_beyond(totals, wanted)
    before = torch.nn.functional.pad(totals, (1, 0)).gather(1, run)
    each = torch.arange(len(runs), device=run.device)
    within = runs[each, run[:, 0]].double().cumsum(-1)
    return run[:, 0] * _RUN + _first_beyond(within, wanted - before)[:, 0]


def _first_beyond(cumulative: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Where each row first exceeds what is wanted of it, at its last step at most: (rows, 1)."""
    below = torch.nextafter(cumulative[:, -1:], torch.zeros_like(wanted))
    # `right` skips what has probability 0 when the draw falls on a step exactly.
    return torch.searchsorted(cumulative, torch.minimum(wanted, below), right=True)


def _nucleus(
    probabilities: torch.Tensor, top_ps: Sequence[float], candidates: int = 1024
) -> torch.Tensor:
    """The probabilities (rows, vocabulary) with those outside each row's likeliest `top_p` set to 0.

    Of equal ones the first tokens are taken for likelier. Only the `candidates` are put in order, where
    those are enough: sorting a vocabulary takes longer than a small model's step.
    """
    n_tokens = probabilities.shape[-1]
    # By token first: the second sort leaves equal ones in that order.
    tokens = probabilities.topk(min(candidates, n_tokens), dim=-1).indices.sort(dim=-1).values
    ordered, order = probabilities.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    exact = ordered.double()
    limits = torch.tensor([[top_p] for top_p in top_ps], dtype=torch.float64, device=exact.device)
    kept = exact.cumsum(-1) - exact < limits
    kept[:, 0] = True
    if candidates < n_tokens and (kept & (ordered == ordered[:, -1:])).any():
        return _nucleus(probabilities, top_ps, n_tokens)
    chosen = torch.where(kept, ordered, 0)
    return torch.zeros_like(probabilities).scatter_(-1, tokens.gather(-1, order), chosen)
