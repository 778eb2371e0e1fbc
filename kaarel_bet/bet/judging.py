"""Judges: models that are asked about answers, and what they say of one.

A judge's answer is taken to be the label that it begins with; of whole numbers the longest, so that 10 is
not 1. Its probability is that of the label's tokens, a number's less those of longer ones that begin with
it. What is on no label is told beside the grade, and where it is too much the answer is unjudged: its
grade can be anything on the scale.
"""

import hashlib
import math
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    Message,
    ScoringQuery,
    ScoringResult,
)
from kaarel_bet.bet.observations import SHARE, Range
from kaarel_bet.bet.prompts import fill
from kaarel_bet.bet.schema import Grader
from kaarel_bet.estimates import Floats
from kaarel_bet.experiments.interface import Row

ANSWER = "answer"
"""What a judge's prompt calls what it judges."""

_SAME_TOKEN = 1e-3
"""How far apart two computations of a token's log-probability (nats) may be."""

_WHOLE_NUMBER = re.compile(r"(-?)0*(\d{1,9})(?![\d.,]*\d)")


@dataclass(frozen=True)
class Judged:
    """What a judge says of an answer: numbers known to lie between a least and a most.

    `shares` are the labels' shares of the probability that is on any; `elsewhere` is what is on none.
    `error` is the standard error of a grade that is of samples; of one that is unjudged it can be anything.
    """

    grade: Range
    shares: Mapping[str, Range]
    elsewhere: Range
    unjudged: Range
    error: Range = (0.0, 0.0)


@dataclass(frozen=True)
class Judging:
    """A grader put to one of its judges; `name` is that of the evaluation."""

    name: str
    grader: Grader
    model: str
    where: str
    seed: int

    def prompt(self, answer: str, row: Row) -> tuple[str, str]:
        """What the judge is asked, and the id of that. Raises SettingsError for a column."""
        prompt = fill(self.grader.prompt or "", {**row, ANSWER: answer}, f"{self.where}.prompt")
        return prompt, hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def query(self, answer: str, row: Row) -> ScoringQuery | GenerationQuery:
        """The same as a query; equal prompts are one."""
        prompt, query_id = self.prompt(answer, row)
        chat = (Message(role="user", content=prompt),)
        if self.grader.samples is None:
            return ScoringQuery(id=query_id, messages=chat, candidates=self._labels)
        return GenerationQuery(
            id=query_id,
            messages=chat,
            max_tokens=self.grader.max_tokens,
            temperature=1.0,
            n_samples=self.grader.samples,
            seed=zlib.crc32(f"{self.seed}/{self.name}/{query_id}".encode()),
        )

    def judged(self, result: ScoringResult | GenerationResult) -> Judged:
        """What the judge's answer comes to."""
        if isinstance(result, GenerationResult):
            return self._of_samples(result.texts)
        low, high = _probabilities(result.candidates, is_scale=self.grader.scale is not None)
        return self._of_probabilities(low, high)

    def _of_probabilities(self, low: Floats, high: Floats) -> Judged:
        least, most = min(1.0, math.fsum(low)), min(1.0, math.fsum(high))
        elsewhere = 1 - most, 1 - least
        limit = self.grader.unjudged_above
        unjudged = float(elsewhere[0] > limit), float(elsewhere[1] > limit)
        if unjudged[1]:  # what may be unjudged may be anything
            shares = dict.fromkeys(self._options, SHARE)
            return Judged(self._span, shares, elsewhere, unjudged)
        places = range(len(low))
        shares = {
            label: mean_between([float(i == at) for i in places], low, high)
            for at, label in enumerate(self._options)
        }
        grade = mean_between(self._values, low, high)
        return Judged(grade, shares, elsewhere, unjudged)

    def _of_samples(self, texts: Sequence[str]) -> Judged:
        said = [self._label_of(text) for text in texts]
        labels = list(self._labels)
        n_said = sum(label is not None for label in said)
        counts = np.array([said.count(label) for label in labels]) / max(1, n_said)
        elsewhere = 1 - n_said / len(texts)
        unjudged = elsewhere > self.grader.unjudged_above or n_said == 0
        sides = (elsewhere, elsewhere), (float(unjudged), float(unjudged))
        if unjudged:
            shares = dict.fromkeys(self._options, SHARE)
            return Judged(self._span, shares, *sides, (0.0, self._span[1] - self._span[0]))
        values = np.array(self._values)
        mean = float(counts @ values)
        error = math.sqrt(float(counts @ (values - mean) ** 2) / max(1, n_said - 1))
        shares = {label: (float(c), float(c)) for label, c in zip(labels, counts, strict=True)}
        of_options = {label: shares[label] for label in self._options}
        return Judged((mean, mean), of_options, *sides, (error, error))

    def _label_of(self, text: str) -> str | None:
        """The label that a judge's words begin with. Digits of every script count."""
        begins = "".join(str(unicodedata.decimal(c, c)) for c in text.lstrip())
        if self.grader.scale is not None:
            found = _WHOLE_NUMBER.match(begins)
            number = str(int(found[1] + found[2])) if found else None
            return number if number in self._labels else None
        labels = self._labels
        return next((name for name, of in labels.items() if begins.startswith(of)), None)

    @property
    def _options(self) -> list[str]:
        """Those of the labels that shares are told of."""
        return [] if self.grader.scale is not None else list(self._labels)

    @cached_property
    def _labels(self) -> dict[str, str]:
        return self.grader.labels

    @cached_property
    def _values(self) -> list[float]:
        """What each label is worth: itself, or 1 for the first of some options."""
        if self.grader.scale is not None:
            return [float(number) for number in self._labels]
        return [float(place == 0) for place in range(len(self._labels))]

    @property
    def _span(self) -> Range:
        return min(self._values), max(self._values)


def _probabilities(
    scores: Mapping[str, CandidateScore], *, is_scale: bool
) -> tuple[Floats, Floats]:
    """The least and greatest probability of each label and of no longer one, (labels,) both."""
    ends = [
        [min(1.0, math.exp(end)) for end in (s.total.low, s.total.high)] for s in scores.values()
    ]
    low, high = np.array(ends).T.copy()
    if is_scale:
        place = {label: number for number, label in enumerate(scores)}
        own_low, own_high = low.copy(), high.copy()
        for label, at in place.items():
            shorter = (label[:end] for end in range(len(label) - 1, 0, -1))
            known = (s for s in shorter if s in place)
            within = next((s for s in known if _may_begin_with(scores[label], scores[s])), None)
            if within is not None:
                low[place[within]] -= own_high[at]
                high[place[within]] -= own_low[at]
    return np.maximum(low, 0), np.maximum(high, 0)


def _may_begin_with(longer: CandidateScore, shorter: CandidateScore) -> bool:
    """Whether a number that begins with another one can have its tokens, too: 1|000 has not those of 100.

    It has more of them then, and the first is the same, which is as likely.
    """
    one, other = longer.first_token, shorter.first_token
    is_same = one.low <= other.high + _SAME_TOKEN and other.low <= one.high + _SAME_TOKEN
    return is_same and shorter.n_tokens < longer.n_tokens


def mean_between(values: Sequence[float], low: Floats, high: Floats) -> Range:
    """The least and greatest mean of some values under weights that lie between `low` and `high`.

    Weights (values,) are shares of 1 whose rest is elsewhere; the mean is over those that are not.
    """
    worth = np.array(values, dtype=np.float64)
    if np.array_equal(low, high):
        mean = float(worth @ low / low.sum()) if low.sum() > 0 else math.nan
        return (mean, mean) if mean == mean else (float(worth.min()), float(worth.max()))
    return -_greatest_mean(-worth, low, high), _greatest_mean(worth, low, high)


def _greatest_mean(values: Floats, low: Floats, high: Floats) -> float:
    """What is left to give goes to the greatest values first, as long as that lifts the mean."""
    total, weighted = float(low.sum()), float(low @ values)
    left = max(0.0, 1 - total)
    for place in np.argsort(-values):
        if total > 0 and values[place] <= weighted / total:
            break
        more = min(float(high[place] - low[place]), left)
        total, weighted, left = total + more, weighted + more * float(values[place]), left - more
    return weighted / total if total > 0 else float(values.max())
