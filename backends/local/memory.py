"""Going on after the device ran out of memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from backends.errors import DeviceMemoryError
from backends.local.sharding import is_shared

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORDS = ("can't allocate memory", "out of memory", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed to allocate, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    # The CPU's and MPS's allocators raise a bare RuntimeError, and so does oneDNN without room for its own.
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)


def check_divisible(error: RuntimeError) -> None:
    """Raises what is not a lack of memory; and DeviceMemoryError where less at a time can't be tried.

    So it is with a sharded model: in the middle of a pass, the other processes wait for this one.
    """
    if not is_out_of_memory(error):
        raise error
    if is_shared():
        raise DeviceMemoryError(
            "out of memory in one of the processes that share the model (local.shard: fsdp); raise "
            "local.training.micro_batches, or lower local.scoring.batch_tokens"
        ) from error


def halving_when_out_of_memory(
    compute: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item]
) -> Iterator[list[Result]]:
    """`compute(batch)`, in two halves where it does not fit, and so on down to single items.

    Raises:
        DeviceMemoryError: a single item does not fit.
    """
    try:
        results = compute(batch)
    except RuntimeError as error:
        check_divisible(error)
        if len(batch) == 1:
            raise DeviceMemoryError(
                "out of memory on a single query; use a smaller model or another local.device"
            ) from error
        results = None
    if results is not None:
        yield results
        return
    # Outside the except block, so that the traceback no longer holds on to the failed batch.
    release_cached_memory()
    middle = len(batch) // 2
    yield from halving_when_out_of_memory(compute, batch[:middle])
    yield from halving_when_out_of_memory(compute, batch[middle:])


def release_cached_memory() -> None:
    """Gives memory that torch keeps for reuse back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
