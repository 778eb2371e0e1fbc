"""What an answer is worth: lm-evaluation-harness's accuracies, and how sure the model was.

lm_eval/api/task.py, `ConfigurableTask.process_results`: `acc` is whether the class with the largest
log-probability is the right one, `acc_norm` the same for the log-probability divided by the class's number
of characters; of equals the first counts.
"""

import numpy as np

from backends.data import LogProbability, ScoringResult
from kaarel_bet.estimates import Floats
from kaarel_bet.experiments.inverse_scaling.items import Item
from kaarel_bet.experiments.inverse_scaling.settings import Metric


def correctness(result: ScoringResult, item: Item, metric: Metric) -> tuple[float, float]:
    """Whether the answer is right as (low, high): equal to each other, or 0 and 1 if not settled.

    It is not settled where log-probabilities are intervals that leave open which is largest.
    """
    lows, highs = _bounds(result, item, metric)
    right = item.answer
    wins = [_beats(lows[right], highs[i], right, i) for i in range(len(lows)) if i != right]
    loses = [_beats(lows[i], highs[right], i, right) for i in range(len(lows)) if i != right]
    return float(all(wins)), float(not any(loses))


def chosen(result: ScoringResult, item: Item, metric: Metric) -> int:
    """The index of the class that is chosen, intervals counting with their middle."""
    lows, highs = _bounds(result, item, metric)
    return int(np.argmax((lows + highs) / 2))


def probabilities(result: ScoringResult, item: Item) -> Floats:
    """The probability of every class, given that it is one of them: (classes,)."""
    totals = _totals(result, item)
    most = max(total.high for total in totals)
    if most == -np.inf:
        return np.full(len(totals), 1 / len(totals))
    lows = np.exp([total.low - most for total in totals])
    highs = np.exp([total.high - most for total in totals])
    middle = (lows + highs) / 2
    return middle / middle.sum()


def _totals(result: ScoringResult, item: Item) -> list[LogProbability]:
    return [result.candidates[str(i)].total for i in range(len(item.classes))]


def _bounds(result: ScoringResult, item: Item, metric: Metric) -> tuple[Floats, Floats]:
    totals = _totals(result, item)
    lengths = [len(text) if metric == "acc_norm" else 1 for text in item.classes]
    lows = np.array([total.low for total in totals]) / lengths
    return lows, np.array([total.high for total in totals]) / lengths


def _beats(low: float, high: float, one: int, other: int) -> bool:
    """Whether a class of at least `low` is surely chosen over another of at most `high`."""
    return bool(low >= high if one < other else low > high)
