"""Whether a model is as often right as it is sure."""

from collections.abc import Sequence

import numpy as np

from kaarel_bet.estimates import Floats

_BINS = 10


def brier(probabilities: Sequence[Floats], answers: Sequence[int]) -> float:
    """Mean over items of the squared error summed over classes, 0 to 2 (Brier 1950)."""
    errors = []
    for given, answer in zip(probabilities, answers, strict=True):
        truth = np.zeros(len(given))
        truth[answer] = 1
        errors.append(((given - truth) ** 2).sum())
    return float(np.mean(errors))


def expected_calibration_error(probabilities: Sequence[Floats], answers: Sequence[int]) -> float:
    """Mean distance of accuracy from confidence, in ten bins of equal width (Guo et al. 2017)."""
    confidence = np.array([given.max() for given in probabilities])
    right = np.array([given.argmax() == a for given, a in zip(probabilities, answers, strict=True)])
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return float(
        sum(
            abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
            for b in np.unique(bins)
        )
    )
