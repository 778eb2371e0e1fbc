"""lm-evaluation-harness against our server, which it asks for tokens as well (`--peers`)."""

import json
import subprocess
from pathlib import Path

import pytest

from backends.data import ScoringQuery
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings
from benchmarks.peer_environment import peer_command
from tests.server import RunningServer

PAIRS = [
    ("The capital of France is", " Paris"),
    ("One, two,", " three, four"),
    ("東京は", "日本の首都"),
    ("Spaces at the end ", "move"),
]


@pytest.mark.peers
def test_the_harness_needs_no_tokenizer_of_its_own(
    server: RunningServer, small_training: LocalSettings, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"id": str(i), "context": c, "continuation": a} for i, (c, a) in enumerate(PAIRS)]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    job = {"model": None, "pairs": str(pairs), "batch_size": 2}
    command = peer_command("lm_eval_served.py", ("lm-eval[api]==0.4.13",))
    done = subprocess.run(
        [*command, json.dumps(job), server.url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])["log_likelihoods"]
    queries = [
        ScoringQuery(id=str(i), prompt=context, candidates={"it": answer})
        for i, (context, answer) in enumerate(PAIRS)
    ]
    scored = LocalBackend(small_training).score(str(small_training.model), queries)
    ours = {result.id: result.candidates["it"].total.high for result in scored}
    assert theirs == pytest.approx([ours[query.id] for query in queries], abs=1e-4)
