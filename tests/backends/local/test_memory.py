import pytest

from backends.errors import DeviceMemoryError
from backends.local.memory import halving_when_out_of_memory

_SAID = (
    "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 9 bytes",
    "MPS backend out of memory",
    "could not create a primitive",  # oneDNN's, with an address space that is used up
)


@pytest.mark.parametrize("said", _SAID)
def test_what_does_not_fit_is_computed_in_halves_down_to_one(said: str) -> None:
    def compute(batch: object) -> list[int]:
        numbers = list(batch)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if len(numbers) > room:
            raise RuntimeError(said)
        return numbers

    room = 1
    assert list(halving_when_out_of_memory(compute, range(4))) == [[0], [1], [2], [3]]
    room = 0
    with pytest.raises(DeviceMemoryError, match="out of memory on a single query"):
        list(halving_when_out_of_memory(compute, range(4)))
