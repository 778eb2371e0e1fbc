"""The experiment over the wire: a hosted service, played by our own server on loopback."""

import json
from pathlib import Path

import pytest

from kaarel_bet.cli import main
from tests.server import RunningServer

_SMALL = (
    "inverse_scaling.n_items=45",
    "inverse_scaling.n_forgetting=2",
    "inverse_scaling.split.n_test=9",
    "inverse_scaling.few_shot={shots: 2, draws: 1}",
    "inverse_scaling.fine_tune={sizes: [10], seeds: 1}",
    "inverse_scaling.transfer.templates=0",
    "inverse_scaling.checks.n_training_rows=4",
    "openai.job.poll_seconds=0.01",
)


@pytest.mark.parametrize(
    ("form", "method", "exact"), [("chat", "top", False), ("text", "auto", True)]
)
def test_the_experiment_runs_over_the_wire_with_intervals_where_scores_are_not_exact(
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    method: str,
    *,
    exact: bool,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = (
        *_SMALL,
        f"openai.model={server.parts.models.base}",
        f"openai.base_url={server.url}",
        f"openai.scoring.method={method}",
        f"inverse_scaling.form={form}",
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    flags = ["--experiment", "inverse_scaling", "--backend", "openai", "--yes"]
    directory = tmp_path / "run"
    assert main(["run", *flags, *sets, "--run-dir", str(directory)]) == 0

    results = [
        json.loads(line) for line in (directory / "scores/base/test.jsonl").read_text().splitlines()
    ]
    totals = [candidate["total"] for r in results for candidate in r["candidates"].values()]
    assert len(totals) == 18
    assert all((total["low"] == total["high"]) == exact for total in totals)
    (verdict,) = json.loads((directory / "verdict.json").read_text())["verdicts"]
    assert [c["name"] for c in verdict["criteria"]] == [
        "gain of fine-tuning", "its lead over prompting",
    ]  # fmt: skip
    assert (directory / "figures" / "transfer.svg").exists()
    report = (directory / "report.md").read_text()
    assert "not the official rows" in report
    if (
        not exact
    ):  # of a model to whom all tokens are about as likely, the 20 most likely tell nothing
        assert verdict["outcome"] == "undecided"
        assert all(c["holds"] is None for c in verdict["criteria"])
