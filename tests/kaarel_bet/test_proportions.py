import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet.proportions import brier, expected_calibration_error, mcnemar, wilson


@given(n=st.integers(1, 500), data=st.data())
def test_wilsons_ends_are_where_the_score_test_turns(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    found = wilson(k, n, 0.95)
    assert 0 <= found.low <= k / n <= found.high <= 1
    for end in (found.low, found.high):
        if 0 < end < 1:
            z = abs(k / n - end) / math.sqrt(end * (1 - end) / n)
            assert z == pytest.approx(1.959964, abs=1e-4)


def test_mcnemar_is_the_two_sided_sign_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)


def test_brier_and_calibration_error() -> None:
    sure, unsure = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    assert brier([sure], [0]) == pytest.approx(0.02)
    assert brier([sure, unsure], [1, 0]) == pytest.approx((1.62 + 0.5) / 2)
    assert expected_calibration_error([sure] * 10, [0] * 9 + [1]) == pytest.approx(0)
    assert expected_calibration_error([sure] * 10, [1] * 10) == pytest.approx(0.9)
    # Two bins, each of half the items: |1 - 0.5| and |0 - 0.9|
    assert expected_calibration_error([unsure, sure], [0, 1]) == pytest.approx(0.7)
