import itertools

import pytest

from backends.local.batches import epoch_batches
from backends.local.sequences import TokenSequence
from backends.local.settings import Grouping

# Eight stems of five examples each, of different lengths.
EXAMPLES = [
    TokenSequence([stem] * 4 + list(range(length)), [4])
    for length in range(1, 6)
    for stem in range(8)
]


@pytest.mark.parametrize("group_by", ["none", "prefix", "length"])
@pytest.mark.parametrize("batch_size", [3, 5])
def test_every_epoch_sees_every_example_once_in_another_order(
    group_by: Grouping, batch_size: int
) -> None:
    epochs = [epoch_batches(EXAMPLES, batch_size, group_by, 7, epoch) for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(itertools.chain(*batches)) == list(range(40))
        assert {len(batch) for batch in batches} <= {batch_size, 40 % batch_size or batch_size}
    assert epochs[0] != epochs[1]
    assert epoch_batches(EXAMPLES, batch_size, group_by, 7, 0) == epochs[0]
    assert epoch_batches(EXAMPLES, batch_size, group_by, 8, 0) != epochs[0]


def test_grouped_batches_hold_what_is_alike() -> None:
    by_prefix = epoch_batches(EXAMPLES, 5, "prefix", 0, 0)
    assert all(len({EXAMPLES[i].tokens[0] for i in batch}) == 1 for batch in by_prefix)
    by_length = epoch_batches(EXAMPLES, 8, "length", 0, 0)
    assert all(len({len(EXAMPLES[i].tokens) for i in batch}) == 1 for batch in by_length)
