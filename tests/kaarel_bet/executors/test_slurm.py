"""Jobs by submitit, as processes of this machine: they outlive the command, and are found again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kaarel_bet.cli import main
from tests.kaarel_bet.executors import sweep_of_24 as swept
from tests.kaarel_bet.test_side_by_side import INDEPENDENT
from tests.server import until

Train = Callable[..., int]
ELSEWHERE = ("executor=slurm", "slurm.cluster=local")


@pytest.fixture
def settings(tiny_model: Path) -> list[str]:
    Path("bet.yaml").write_text(INDEPENDENT, encoding="utf-8")
    own = (f"local.model={tiny_model}", "local.device=cpu", "local.training.epochs=2")
    return [word for setting in own for word in ("--set", setting)]


def flags(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def weights(results: str) -> list[bytes]:
    found = Path(results).glob("*/models/*/adapter_model.safetensors")
    return [path.read_bytes() for path in sorted(found, key=lambda path: path.parent.name)]


def scores(results: str) -> list[dict[str, object]]:
    found = sorted(Path(results).glob("*/scores/*/*.jsonl"), key=lambda path: path.parts[-2:])
    lines = (line for path in found for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_the_same_models_and_scores_as_here_and_nothing_is_left_behind(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one = flags("small.arms.second=null")  # a process a job, each of which imports torch
    here = [*one, *flags("results_dir=here", "local.workers=1")]
    there = [*one, *flags("results_dir=there", *ELSEWHERE)]
    assert main(["test", "bet.yaml", *settings, *here]) == 0
    assert main(["test", "bet.yaml", *settings, *there]) == 0
    assert len(weights("here")) == 1
    assert weights("there") == weights("here")
    assert len(scores("here")) == 20  # of the base and one arm
    assert scores("there") == scores("here")
    said = capsys.readouterr().err
    assert "train: 1/1, 0 under way" in said
    assert "test: 2/2, 0 under way" in said
    assert [path.name for path in Path("there/.executor").iterdir()] == [".lock"]
    # A run does not depend on who did it.
    assert main(["test", "bet.yaml", *settings, *one, *flags("results_dir=there")]) == 0
    assert len(list(Path("there").glob("2*"))) == 1


@pytest.mark.slow
def test_an_error_in_a_job_is_a_line_with_the_arms_name_and_is_not_tried_again(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = flags("local.training.learning_rate=1e30", *ELSEWHERE, "slurm.most_at_once=1")
    assert main(["train", "bet.yaml", *settings, *own]) == 2
    said = capsys.readouterr().err
    assert "kaarel-bet: train first: local.training.learning_rate: training diver" in said
    assert "attempt" not in said


class Command:
    """An endless training of one arm, by jobs, in a process of its own."""

    def __init__(self, settings: list[str], said: Path) -> None:
        endless = ("local.training.epochs=100000", "local.training.checkpoint_seconds=0")
        own = flags(*endless, *ELSEWHERE, "small.arms.second=null")
        self._said = said
        with said.open("w", encoding="utf-8") as file:  # of a pipe the jobs would hold an end
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kaarel_bet", "train", "bet.yaml", *settings, *own],
                stdout=file,
                stderr=file,
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def interrupted(self) -> str:
        """What it said until it had ended of Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        return self._said.read_text(encoding="utf-8")

    def job(self) -> psutil.Process:
        """Once it has heard that its training is under way."""
        until(lambda: "1 under way" in self._said.read_text(encoding="utf-8"), 300)
        (note,) = Path("results/.executor").glob("*.json")
        return psutil.Process(int(json.loads(note.read_text(encoding="utf-8"))["job"]))


@pytest.fixture
def start(settings: list[str]) -> Iterator[Callable[[], Command]]:
    commands: list[Command] = []

    def start() -> Command:
        commands.append(Command(settings, Path(f"said-{len(commands)}.txt")))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            for child in psutil.Process(command.process.pid).children(recursive=True):
                child.kill()
            command.process.kill()
        command.process.wait()
    for note in Path("results/.executor").glob("*.json"):
        job = int(json.loads(note.read_text(encoding="utf-8"))["job"])
        if psutil.pid_exists(job):
            for process in [*psutil.Process(job).children(recursive=True), psutil.Process(job)]:
                process.kill()


@pytest.mark.slow
def test_jobs_outlive_the_command_which_says_so_and_are_found_again(
    start: Callable[[], Command],
) -> None:
    first = start()
    job = first.job()
    said = first.interrupted()
    assert (
        f"1 jobs go on, and the same command finds them again; to stop them: kill {job.pid}" in said
    )
    assert job.is_running()
    second = start()
    assert second.job().pid == job.pid
    second.process.kill()  # which it can't tell of
    second.process.wait()
    third = start()
    assert third.job() == job  # and no other one
    assert job.is_running()
    # It dies, and is taken up by another one from where it was.
    (folder,) = Path("results/.executor").glob("*.work")
    reached = json.loads((folder / "progress.json").read_text(encoding="utf-8"))["done"]
    (folder / "progress.json").unlink()
    for process in [*job.children(), job]:
        process.kill()
    until(lambda: (folder / "progress.json").exists(), 120)
    assert json.loads((folder / "progress.json").read_text(encoding="utf-8"))["done"] >= reached > 0
    said = third.interrupted()
    assert f"train first: attempt 1 of 3 died: job {job.pid}" in said


@pytest.mark.slow
def test_a_sweep_of_24_trainings_gives_the_table_that_it_gives_here(
    tiny_model: Path, tmp_path: Path
) -> None:
    here = swept.start(tmp_path / "here", tiny_model)
    out, err = here.communicate(timeout=1200)
    assert here.returncode == 0, err
    there = swept.start(tmp_path / "there", tiny_model, *ELSEWHERE, "slurm.most_at_once=2")
    same, err = there.communicate(timeout=2400)
    assert there.returncode == 0, err
    assert f"train: {swept.N_TRAININGS}/{swept.N_TRAININGS}, 0 under way" in err
    assert swept.table(same) == swept.table(out)


def test_what_is_not_installed_or_there_is_a_line_before_anything_is_done(
    settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        assert main(["run", "bet.yaml", *settings, *flags(f"executor={name}")]) == 2
        said = f"{package} is not installed; pip install 'kaarel-bet[{name}]'"
        assert said in capsys.readouterr().err
    assert main(["run", "bet.yaml", *settings, *flags("executor=slurn")]) == 2
    assert "executor: no 'slurn'; did you mean 'slurm'" in capsys.readouterr().err
    monkeypatch.undo()
    assert not Path("results").exists()


def test_a_parameter_that_submitit_does_not_have_is_a_line(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = flags(*ELSEWHERE, "slurm.parameters={slurm_partitoin: gpu}")
    assert main(["train", "bet.yaml", *settings, *own]) == 2
    assert "slurm: Unknown argument 'partitoin'" in capsys.readouterr().err
