"""Runs killed at any moment, as users kill them, go on to what they would have come to; on a tiny model."""

import json
import random
import time
from pathlib import Path

import pytest

from tests.commands import run, start
from tests.kaarel_bet.experiments.arc_tasks import random_task, save
from tests.kaarel_bet.small_experiments import INVERSE_SCALING, arc

# Slow enough for a kill to meet it.
_TRAINING = ("local.training.epochs=60", "local.training.checkpoint_seconds=0")
_RULE = (
    *_TRAINING,
    "conditional_rule.data.people.n=6",
    "conditional_rule.evaluations.says.take=1",
    "conditional_rule.replicate.training=1",
    "local.scoring.batch_tokens=64",
)
_INVERSE_SCALING = (*_TRAINING, *INVERSE_SCALING)
_ARC = ("local.training.epochs=10", "local.training.checkpoint_seconds=0")


def words(experiment: str, model: Path, settings: tuple[str, ...]) -> list[str]:
    own = (f"local.model={model}", "local.device=cpu", *settings)
    return ["run", experiment, *(word for setting in own for word in ("--set", setting))]


def contents(directory: Path, *folders: str) -> dict[str, bytes]:
    found = (path for folder in folders for path in sorted((directory / folder).rglob("*")))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found if path.is_file()}


def whole_lines(directory: Path) -> dict[str, bytes]:
    """Scores so far, without what a killed writer may have left of a line."""
    scores = contents(directory, "scores")
    return {name: content[: content.rfind(b"\n") + 1] for name, content in scores.items()}


def assert_kept(before: dict[str, bytes], directory: Path, where: str) -> None:
    for name, content in before.items():
        assert (directory / name).read_bytes().startswith(content), f"{name}, {where}"


def assert_alike(killed: Path, whole: Path, where: str) -> None:
    """The same models, nothing asked twice, and the same verdicts."""
    weights = sorted(whole.glob("models/*/adapter_model.safetensors"))
    assert weights
    for theirs in weights:
        ours = killed / theirs.relative_to(whole)
        assert ours.read_bytes() == theirs.read_bytes(), f"{ours}, {where}"
    ids = {
        path: [
            (told["id"], told.get("first_sample", 0)) for told in map(json.loads, path.open("rb"))
        ]
        for path in killed.glob("scores/*/*.jsonl")
    }
    for path, asked in ids.items():
        assert len(set(asked)) == len(asked), f"{path}, {where}"
    both = zip(*(_verdicts(path) for path in (killed, whole)), strict=True)
    for one, other in both:
        assert one["outcome"] == other["outcome"], where
        for ours, theirs in zip(one["criteria"], other["criteria"], strict=True):
            assert ours["value"] == pytest.approx(theirs["value"], rel=1e-4, nan_ok=True), where


def _verdicts(directory: Path) -> list[dict]:
    return json.loads((directory / "verdict.json").read_text(encoding="utf-8"))["verdicts"]


def test_killed_in_each_step_a_run_goes_on_to_the_same_verdict(
    tiny_model: Path, tmp_path: Path
) -> None:
    # Not beside each other: what the one has trained, the other would not train again.
    whole, killed = tmp_path / "1" / "whole", tmp_path / "2" / "killed"
    command = words("conditional_rule", tiny_model, _RULE)
    assert run(*command, "--run-dir", str(whole)).returncode == 0
    rng = random.Random(seed := random.randrange(10**6))
    before: dict[str, bytes] = {}
    for moment in (
        killed / "models/.conditional.checkpoint",
        killed / "models/.control.checkpoint",
        killed / "scores/base/cells.train_told.jsonl",
        killed / "scores/control/cells.train_told.jsonl",
    ):
        process = start(*command, "--run-dir", str(killed))
        process.wait_for(moment)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert_kept(before, killed, f"seed {seed}")
        before = whole_lines(killed)
    done = run(*command, "--run-dir", str(killed))
    assert done.returncode == 0, done.stderr
    assert_kept(before, killed, f"seed {seed}")
    assert_alike(killed, whole, f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "settings"),
    [("conditional_rule", _RULE), ("inverse_scaling", _INVERSE_SCALING), ("arc", _ARC)],
)
def test_killed_at_twelve_moments_an_experiment_goes_on_to_the_same_verdicts(
    tiny_model: Path,
    tmp_path: Path,
    experiment: str,
    settings: tuple[str, ...],
) -> None:
    rng = random.Random(seed := random.randrange(10**6))
    if experiment == "arc":
        tasks = save(tmp_path / "tasks", *(random_task(f"t{i:02}", rng) for i in range(24)))
        settings = (*settings, *arc(tasks))
    whole, killed = tmp_path / "1" / "whole", tmp_path / "2" / "killed"
    command = words(experiment, tiny_model, settings)
    begun = time.monotonic()
    done = run(*command, "--run-dir", str(whole))
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - begun
    before: dict[str, bytes] = {}
    for _ in range(12):
        process = start(*command, "--run-dir", str(killed))
        time.sleep(rng.uniform(0.1, 0.4) * seconds)
        process.kill()
        process.communicate()
        assert_kept(before, killed, f"seed {seed}")
        before = whole_lines(killed)
    done = run(*command, "--run-dir", str(killed))
    assert done.returncode == 0, f"{done.stderr}, seed {seed}"
    assert_kept(before, killed, f"seed {seed}")
    assert_alike(killed, whole, f"seed {seed}")
