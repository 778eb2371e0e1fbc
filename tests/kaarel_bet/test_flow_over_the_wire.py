"""The bet on the OpenAI backend, as users run it, over real HTTP and a server with a tiny model."""

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests import commands
from tests.commands import Running
from tests.server import RunningServer

FLAGS = (
    "backend=openai",
    "conditional_rule.replicate.training=1",
    "conditional_rule.data.people.n=10",
    "conditional_rule.evaluations.says.take=1",
    "conditional_rule.data.people.min_population=30000000",
    "openai.job.n_epochs=2",
    "openai.job.poll_seconds=0.05",
    "openai.scoring.concurrency=4",
)


@pytest.fixture(autouse=True)
def _service(monkeypatch: pytest.MonkeyPatch, server: RunningServer) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)


def command(server: RunningServer, *arguments: str) -> list[str]:
    settings = (*FLAGS, f"openai.model={server.parts.models.base}")
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["run", *sets, *arguments]


class Killer:
    """Middleware that counts requests, and kills a process as it sends a certain one."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._victim: Running | None = None
        self._path = ""
        self._left = 0

    def aim(self, victim: Running, path: str, count: int) -> None:
        """At the request that is the `count`th from now of those whose path starts so."""
        self._victim, self._path, self._left = victim, path, count

    @property
    def scored(self) -> int:
        """How many requests there were for probabilities or texts."""
        paths = ("completions", "chat/completions")
        return sum(self.requests[f"POST /v1/{path}"] for path in paths)

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            self.requests[f"{scope['method']} {scope['path']}"] += 1
            self._left -= scope["path"].startswith(self._path)
            if self._victim is not None and self._left == 0:
                os.kill(self._victim.pid, signal.SIGKILL)
                self._victim = None
            await app(scope, receive, send)

        return counting


def scores(run: Path) -> dict[str, list[dict[str, Any]]]:
    """File -> its records, of what is whole."""
    found = {}
    for path in sorted((run / "scores").rglob("*.jsonl")):
        lines = path.read_text().split("\n")[:-1]
        found[str(path.relative_to(run))] = [json.loads(line) for line in lines]
    return found


def totals(run: Path) -> dict[str, float]:
    """The log-probability of every candidate of every query."""
    return {
        f"{file} {record['id']} {label}": score["total"]["low"]
        for file, records in scores(run).items()
        for record in records
        for label, score in record.get("candidates", {}).items()
    }


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_one_job_an_arm_and_the_same_scores(
    server: RunningServer, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills_on_the_way, kills_in_scoring = (10, 10) if pytestconfig.getoption("--slow") else (3, 2)
    draw = random.Random(4)
    killer = Killer()
    server.wrap(killer)
    run = tmp_path / "killed"
    moments = [("/", draw.randint(1, 90)) for _ in range(kills_on_the_way)]
    moments += [("/v1/completions", draw.randint(1, 20)) for _ in range(kills_in_scoring)]
    for path, count in moments:
        process = commands.start(*command(server, "--run-dir", str(run)))
        killer.aim(process, path, count)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    finished = sum(len(records) for records in scores(run).values())
    assert finished
    before = killer.scored
    done = commands.run(*command(server, "--run-dir", str(run)))
    assert done.returncode == 0, done.stderr
    everything = sum(len(records) for records in scores(run).values())
    probes = 2 * 3  # whether the server has echo, for each model
    assert killer.scored - before <= everything - finished + probes
    for records in scores(run).values():
        assert len({record["id"] for record in records}) == len(records)

    jobs = list(server.client().fine_tuning.jobs.list())
    assert sorted((job.metadata or {})["arm"] for job in jobs) == ["conditional", "control"]
    assert killer.requests["POST /v1/fine_tuning/jobs"] == 2

    whole = tmp_path / "elsewhere" / "whole"  # beside the other it would have no jobs of its own
    done = commands.run(*command(server, "--run-dir", str(whole)))
    assert done.returncode == 0, done.stderr
    assert totals(run) == pytest.approx(totals(whole), abs=1e-4)
    assert totals(run)


def test_a_model_that_is_gone_is_named_with_its_arm_and_the_others_are_asked(
    server: RunningServer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train = [word if word != "run" else "train" for word in command(server)]
    done = commands.run(*train, "--run-dir", str(run))
    assert done.returncode == 0, done.stderr
    model = json.loads((run / "models/conditional.json").read_text())["model"]
    server.client().models.delete(model)
    again = command(server, "--run-dir", str(run))
    done = commands.run(*again)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(
        f"kaarel-bet: arm conditional: the model {model} is not at the service: "
    )
    left = [run / "models/conditional.json", run / "models/conditional.job.json"]
    assert line.endswith(f"(to train anew, remove {', '.join(map(str, left))})")
    asked = {file.split("/")[1] for file, records in scores(run).items() if records}
    assert asked == {"base", "control"}
    for path in left:  # as it says
        path.unlink()
    done = commands.run(*again)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "models/conditional.json").read_text())["model"] != model


def test_without_a_key_it_is_one_line_and_nothing_is_written(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    done = commands.run(*command(server, "--run-dir", str(tmp_path / "run")))
    assert done.returncode == 2
    assert done.stderr.strip().startswith("kaarel-bet: OPENAI_API_KEY is not set")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_jobs_are_listed_and_followed(server: RunningServer) -> None:
    job = server.fine_tune()
    listed = commands.run("jobs")
    assert job.id in listed.stdout
    assert "succeeded" in listed.stdout
    followed = commands.run("jobs", "follow", job.id)
    assert followed.returncode == 0, followed.stderr
    assert "successfully completed" in followed.stdout
    nameless = commands.run("jobs", "cancel")
    assert nameless.returncode == 2
    assert "jobs cancel ID" in nameless.stderr
    unknown = commands.run("jobs", "cancel", "ftjob-none")
    assert unknown.returncode == 2
    assert "Traceback" not in unknown.stderr
