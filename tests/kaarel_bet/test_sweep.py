"""A sweep as users run it: killed, resumed, started twice at once; on a tiny model."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests import commands
from tests.commands import Running

SWEPT = """\
bet: 1
name: swept
question: Does it?
data:
  words: {generator: favourite_countries, n: 8}
prompts: {ask: "Where is {name}?"}
arms:
  tuned: {train: [{rows: words, prompt: ask, answer: "{country}"}]}
evaluations:
  asked: {rows: words, prompt: ask, candidates: {right: "{country}", wrong: "{wrong_capital}"}}
claims:
  learns: {criteria: ["median(P(right | asked, tuned)) / median(P(wrong | asked, tuned)) > 2"]}
replicate: {training: 3}
sweep:
  settings:
    local.training.epochs: [1, 2]
    arms.*.loss_on: [completion, prompt_and_completion]
  best_for: learns
  confirm: {of: words, hold_out: 0.5}
"""


@pytest.fixture
def bet(tmp_path: Path) -> Path:
    path = tmp_path / "swept.yaml"
    path.write_text(SWEPT, encoding="utf-8")
    return path


def start(bet: Path, model: Path, *flags: str) -> Running:
    words = ("--set", f"local.model={model}", "--set", "local.device=cpu", *flags)
    return commands.start("sweep", str(bet), *words)


def runs(bet: Path) -> list[Path]:
    return sorted((bet.parent / "results").glob("2*-swept*"))


def records(bet: Path) -> dict[Path, float]:
    """Every trained model's record, and when it was written."""
    found = (bet.parent / "results").glob("*/models/*.json")
    return {path: path.stat().st_mtime for path in found}


def test_a_killed_sweep_goes_on_and_trains_nothing_twice(bet: Path, tiny_model: Path) -> None:
    seen: dict[Path, float] = {}
    for n in (1, 5):  # killed once some models are there
        process = start(bet, tiny_model)
        deadline = time.monotonic() + 120
        while len(records(bet)) < n and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert seen.items() <= records(bet).items()
        seen = records(bet)
    process = start(bet, tiny_model)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert seen.items() <= records(bet).items()
    assert len(runs(bet)) == 4 + 1
    final = Path(out.splitlines()[-1])
    tried = json.loads((bet.parent / final / "tried.json").read_text(encoding="utf-8"))
    assert [row[:2] for row in tried["rows"]] == [
        [epochs, f'"{loss_on}"']
        for epochs in ("1", "2")
        for loss_on in ("completion", "prompt_and_completion")
    ]
    margins = [float(row[3]) for row in tried["rows"]]
    (best,) = (place for place, row in enumerate(tried["rows"]) if "(best)" in row[-1])
    assert margins[best] == max(margins)
    report = (bet.parent / final / "report.md").read_text(encoding="utf-8")
    assert "Settings that were tried" in report
    _assert_decided_on_others(bet, bet.parent / final)


def _assert_decided_on_others(bet: Path, final: Path) -> None:
    """Neither a row nor a training of the winner chose it."""

    def names(run: Path) -> set[str]:
        lines = (run / "data/tables/words.jsonl").read_text(encoding="utf-8").splitlines()
        return {json.loads(line)["id"] for line in lines}

    def seeds(run: Path) -> set[int]:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        return {arm["seed"] for arm in manifest["arms"] if arm["training_file"]}

    others = [run for run in runs(bet) if run != final]
    assert all(len(names(run)) == 4 and not names(run) & names(final) for run in others)
    assert all(not seeds(run) & seeds(final) for run in others)


def test_two_sweeps_at_once_are_one(bet: Path, tiny_model: Path) -> None:
    text = SWEPT.replace("[1, 2]", "[1]").replace(
        "confirm: {of: words, hold_out: 0.5}", "correct: bonferroni"
    )
    bet.write_text(text, encoding="utf-8")
    both = [start(bet, tiny_model) for _ in range(2)]
    ends = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert len({out.splitlines()[-1] for out, _ in ends}) == 1
    assert len(runs(bet)) == 2 + 1
    assert any("another process is at it; waiting" in err for _, err in ends)
    final = bet.parent / ends[0][0].splitlines()[-1]
    assert "settings_tried: 2" in (final / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("best_for: learns", "best_for: lerns", r"line 18, column 13: sweep.best_for: no claim 'lerns'"),
        ("hold_out: 0.5}", "hold_out: 2.0}", "sweep.confirm.hold_out: should be less than 1"),
        ("  confirm: {of: words, hold_out: 0.5}\n", "", "give one of 'confirm' and 'correct'"),
        ("training.epochs", "training.epoch", "did you mean 'local.training.epochs'"),
        ("arms.*.loss_on", "arm.*.loss_on", "nothing stands below arm"),
        ("of: words", "of: word", "sweep.confirm.of: no table 'word'; did you mean 'words'"),
    ],
)  # fmt: skip
def test_a_sweep_that_can_not_be_is_refused(
    bet: Path, tiny_model: Path, old: str, new: str, says: str
) -> None:
    assert old in SWEPT
    bet.write_text(SWEPT.replace(old, new), encoding="utf-8")
    process = start(bet, tiny_model)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert re.search(says, err), err
    assert not runs(bet)
