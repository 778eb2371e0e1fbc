"""A Ray of the user's own, and a cluster of three nodes that loses one (`--peers`)."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kaarel_bet.executors import sweep_of_24 as swept
from tests.server import until

pytestmark = pytest.mark.peers

NODES = swept.REPOSITORY / "tests" / "ray_nodes.py"
LISTENING = """
import json, sys
import psutil
from pathlib import Path
from kaarel_bet.executors import open_executor
from kaarel_bet.executors.settings import RaySettings

executor = open_executor(RaySettings(), Path())
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = [c.laddr.ip for p in processes for c in p.net_connections() if c.status == "LISTEN"]
print(json.dumps(sorted(set(found))))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that has Ray as well."""
    directory = tmp_path_factory.mktemp("with-ray")
    subprocess.run(
        [swept.REPOSITORY / "scripts/uv", "sync", "--quiet", "--extra", "ray", "--no-group", "dev"],
        cwd=swept.REPOSITORY,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(directory / "venv")},
        check=True,
    )
    return str(directory / "venv/bin/python")


class Nodes:
    """A cluster of three, whose last one can be killed."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(NODES), "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._told()

    def kill_one(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("one\n")
        self._process.stdin.flush()
        assert self._told() == "killed, 2 left"

    def end(self) -> None:
        self._process.communicate(timeout=120)

    def _told(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def nodes(python: str) -> Iterator[Nodes]:
    cluster = Nodes(python)
    yield cluster
    cluster.end()


def test_a_sweep_of_24_trainings_that_loses_a_node_gives_the_table_that_it_gives_here(
    nodes: Nodes, python: str, tiny_model: Path, tmp_path: Path
) -> None:
    settings = ("executor=ray", f"ray.address={nodes.address}")
    there = swept.start(tmp_path / "there", tiny_model, *settings, python=python)
    until(lambda: len(swept.models(tmp_path / "there")) >= 8 or there.poll() is not None, 1200)
    nodes.kill_one()
    out, err = there.communicate(timeout=1200)
    assert there.returncode == 0, err
    print(err)
    assert "attempt 1 of 3 died: NodeDiedError: " in err
    assert f"train: {swept.N_TRAININGS}/{swept.N_TRAININGS}, 0 under way" in err
    assert out.splitlines()[-1].startswith("results/")
    here = swept.start(tmp_path / "here", tiny_model)
    same, err = here.communicate(timeout=1200)
    assert here.returncode == 0, err
    assert swept.table(out) == swept.table(same)


def test_what_is_started_here_listens_on_loopback(python: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-c", LISTENING],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(swept.REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert found
    assert set(found) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_cluster_that_is_not_there_is_a_line(
    python: str, tiny_model: Path, tmp_path: Path
) -> None:
    settings = ("executor=ray", "ray.address=127.0.0.2:1")
    process = swept.start(tmp_path / "there", tiny_model, *settings, python=python)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "kaarel-bet: ray.address: 127.0.0.2:1: no Ray there (" in err.splitlines()[-1]
