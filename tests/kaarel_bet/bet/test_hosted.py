"""The experiment over the wire: a hosted service, played by our own server on loopback."""

import json
from pathlib import Path

import pytest

from kaarel_bet.cli import main
from tests.kaarel_bet.small_experiments import INVERSE_SCALING
from tests.server import RunningServer

_SMALL = (*INVERSE_SCALING, "openai.job.n_epochs=1", "openai.job.poll_seconds=0.01")


@pytest.mark.parametrize(
    ("form", "method", "exact"),
    [pytest.param("chat", "top", False, marks=pytest.mark.slow), ("text", "auto", True)],
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
        json.loads(line)
        for line in (directory / "scores/base/zero_shot.jsonl").read_text().splitlines()
    ]
    totals = [candidate["total"] for r in results for candidate in r["candidates"].values()]
    assert len(totals) == 18
    assert all((total["low"] == total["high"]) == exact for total in totals)
    (verdict,) = json.loads((directory / "verdict.json").read_text())["verdicts"]
    assert verdict["criteria"][0]["name"] == "gain(acc(zero_shot, tuned_64), acc(zero_shot, base))"
    assert (directory / "figures" / "transfer.svg").exists()
    report = (directory / "report.md").read_text()
    assert "not the official rows" in report
    if (
        not exact
    ):  # of a model to whom all tokens are about as likely, the 20 most likely tell nothing
        assert verdict["outcome"] == "undecided"
        assert all(c["holds"] is None for c in verdict["criteria"])


@pytest.mark.slow
def test_texts_learned_with_their_prompts_come_out_the_same_over_the_wire(
    server: RunningServer, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    everywhere = ("reversal_curse.replicate.training=1", "seed=3")
    settings = {
        "openai": (
            f"openai.model={server.parts.models.base}",
            f"openai.base_url={server.url}",
            "openai.job.n_epochs=2",
            "openai.job.poll_seconds=0.01",
        ),
        "local": (  # as the server has them
            f"local.model={tiny_model}",
            "local.device=cpu",
            "local.lora={rank: 4, alpha: 8.0}",
            "local.training.epochs=2",
            "local.training.batch_size=5",
            "local.training.learning_rate=1e-2",
        ),
    }
    scores = {}
    for backend, own in settings.items():
        sets = [word for setting in (*everywhere, *own) for word in ("--set", setting)]
        directory = tmp_path / backend
        flags = ["reversal_curse", "--backend", backend, "--yes", "--run-dir", str(directory)]
        assert main(["test", *flags, *sets]) == 0
        for model in ("base", "a_to_b", "b_to_a"):
            for line in (directory / f"scores/{model}/backwards.jsonl").read_text().splitlines():
                result = json.loads(line)
                totals = [c["total"]["low"] for c in result["candidates"].values()]
                scores[backend, model, result["id"]] = totals
    for (backend, model, row), totals in scores.items():
        assert totals == pytest.approx(scores["local", model, row], abs=2e-4), (backend, model, row)
    assert scores["local", "a_to_b", "row-0001"] != pytest.approx(
        scores["local", "base", "row-0001"], abs=1e-2
    )
