"""The same task file through lm-evaluation-harness and through the local backend (`--peers`)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends import open_backend
from backends.local.settings import LocalSettings
from benchmarks.peer_environment import peer_command
from kaarel_bet.experiments.inverse_scaling.items import Item, make_items
from kaarel_bet.experiments.inverse_scaling.outcomes import correctness
from kaarel_bet.experiments.inverse_scaling.prompts import query
from kaarel_bet.experiments.inverse_scaling.redefine import redefine_rows
from kaarel_bet.experiments.inverse_scaling.rows import read_rows

LM_EVAL = ("lm-eval[hf]==0.4.13",)

_ROWS: list[dict[str, Any]] = [
    {"prompt": "Q: Is it? A: ", "classes": ["yes", "no"], "answer_index": 1},
    {"prompt": "Two spaces  ", "classes": [" yes", "no"], "answer_index": 0},
    {"prompt": "The end.\n", "classes": ["Then", "Now"], "answer_index": 0},
    {
        "prompt": "Country of many tokens:",
        "classes": [" Papua New Guinea", " Guinea-Bissau", " Guinea"],
        "answer_index": 2,
    },
    {"prompt": "A prefix:", "classes": [" Guinea", " Guinea-Bissau"], "answer_index": 1},
    {
        "prompt": "Redefine π as 715+245. 60÷4 is",
        "classes": [" π÷2", " ÷", " 15"],
        "answer_index": 2,
    },
    {
        "prompt": "Inside a word: the cap",
        "classes": ["ital of Peru", "ital of Chad"],
        "answer_index": 0,
    },
    {"prompt": "First tokens alike:", "classes": [" 17 apples", " 17 pears"], "answer_index": 1},
    {"prompt": "word " * 700 + "A:", "classes": [" Yes", " No way"], "answer_index": 0},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.peers
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "llama, text begun"])
@pytest.mark.parametrize(("n_shots", "delimiter"), [(0, ""), (3, ""), (3, " ")])
def test_log_likelihoods_and_accuracies_are_lm_evaluation_harnesss(
    tiny_models: dict[str, Path],
    tiny_model_with_beginning: Path,
    tmp_path: Path,
    architecture: str,
    n_shots: int,
    delimiter: str,
) -> None:
    generated = [
        {"prompt": row.prompt, "classes": list(row.classes), "answer_index": row.answer}
        for row in redefine_rows(21, seed=0)
    ]
    data = write(tmp_path / "task.jsonl", _ROWS + generated[:18])
    examples = write(tmp_path / "examples.jsonl", generated[18:])
    models = tiny_models | {"llama, text begun": tiny_model_with_beginning}
    model = models[architecture]
    job = {
        "model": str(model),
        "data": str(data),
        "examples": str(examples),
        "shots": n_shots,
        "delimiter": delimiter,
    }
    done = subprocess.run(
        [*peer_command("lm_eval_task.py", LM_EVAL), json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *theirs, means = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]

    rows, shown = (
        [row.model_copy(update={"delimiter": delimiter}) for row in read_rows(file)]
        for file in (data, examples)
    )
    items = make_items(rows, part="test", prefix="row")
    shown = shown[:n_shots]
    queries = [query(item, "text", shown) for item in items]
    settings = LocalSettings.model_validate({"model": str(model), "device": "cpu"})
    backend = open_backend("local", settings)
    results = {result.id: result for result in backend.score(backend.base_model, queries)}

    def right(item: Item, metric: Any) -> float:  # noqa: ANN401
        low, high = correctness(results[item.id], item, metric)
        assert low == high
        return low

    assert len(theirs) == len(items)
    for item, asked, their in zip(items, queries, theirs, strict=True):
        ours = [results[item.id].candidates[label] for label in asked.candidates]
        pairs = [[asked.prompt, text] for text in asked.candidates.values()]
        assert pairs == their["arguments"]
        assert [score.total.low for score in ours] == pytest.approx(
            their["log_likelihoods"], abs=1e-4
        )
        assert right(item, "acc") == their["acc"]
        assert right(item, "acc_norm") == their["acc_norm"]
    for metric in ("acc", "acc_norm"):
        mean = sum(right(item, metric) for item in items) / len(items)
        assert mean == pytest.approx(means[metric], abs=1e-12)
