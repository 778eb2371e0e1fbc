import threading
from pathlib import Path

import pytest
import torch

from backends.interface import Estimate, Place
from backends.local import workers as module
from backends.local.workers import environment, threads, workers

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads and 10 GB; three GPUs with 20 GB free each."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr(module, "free_bytes", lambda: 10_000_000_000)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda number: (20_000_000_000, 0))


def trainings(n: int, *, gigabytes: float = 1, seconds: float = 90) -> list[Estimate]:
    return [Estimate(1, seconds=seconds, memory_bytes=int(gigabytes * 1e9))] * n


def test_of_its_own_accord_it_is_one_a_thread_or_gpu_and_no_more_than_there_are_trainings() -> None:
    assert workers("auto", CPU, trainings(9)) == 4
    assert workers("auto", CPU, trainings(2)) == 2
    assert workers("auto", GPU, trainings(9)) == 3
    assert workers("auto", torch.device("mps"), trainings(9)) == 1
    assert (
        workers("auto", CPU, trainings(9, seconds=2)) == 1
    )  # a process would take longer to start


def test_what_is_chosen_holds_where_the_memory_does() -> None:
    assert workers(3, CPU, trainings(9, seconds=2)) == 3
    assert workers(6, CPU, trainings(9, gigabytes=3)) == 3
    assert workers("auto", CPU, trainings(9, gigabytes=6)) == 1
    assert workers(1, CPU, trainings(9)) == 1
    assert (
        workers(8, CPU, trainings(9, gigabytes=30)) == 1
    )  # one is for the training itself to find out
    assert workers(9, GPU, trainings(9, gigabytes=9)) == 6
    assert workers(9, GPU, trainings(9, gigabytes=30)) == 3
    assert workers(2, CPU, [*trainings(1, gigabytes=1), *trainings(1, gigabytes=9.5)]) == 1


def test_in_one_pass_there_are_as_many_as_one_device_has_room_for() -> None:
    assert workers("auto", CPU, trainings(20, gigabytes=1), one_pass=True) == 8
    assert workers("auto", CPU, trainings(20, gigabytes=4), one_pass=True) == 2
    assert workers(3, CPU, trainings(20, gigabytes=1), one_pass=True) == 3
    assert workers("auto", GPU, trainings(9, gigabytes=6), one_pass=True) == 3
    assert workers(9, GPU, trainings(9, gigabytes=30), one_pass=True) == 1


def test_places_share_the_threads_and_see_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    assert [threads(CPU, Place(0, of, stop)) for of in (1, 2, 3, 9)] == [4, 2, 1, 1]
    assert threads(GPU, Place(0, 3, stop)) is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = [environment(GPU, Place(n, 4, stop))["CUDA_VISIBLE_DEVICES"] for n in range(4)]
    assert seen == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a,7")
    assert environment(GPU, Place(1, 3, stop))["CUDA_VISIBLE_DEVICES"] == "GPU-a"


def test_a_container_has_what_it_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    outside = module.free_bytes()
    assert outside > 1_000_000
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 3500\ninactive_file 500\n")
    assert module.free_bytes() == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert module.free_bytes() > 1_000_000
