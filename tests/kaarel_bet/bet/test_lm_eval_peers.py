"""The same task file through lm-evaluation-harness and through the local backend (`--peers`)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends import open_backend
from backends.data import ScoringQuery
from backends.local.settings import LocalSettings
from benchmarks.peer_environment import peer_command
from kaarel_bet.bet.observations import Observations
from kaarel_bet.generators.redefine_math import redefine_rows
from tests.kaarel_bet.bet.shipped import answered
from tests.kaarel_bet.bet.written import written

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
        {"prompt": prompt, "classes": classes, "answer_index": answer}
        for prompt, classes, answer in redefine_rows(21, seed=0)
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

    shown = f"examples: {{rows: shown, n: {n_shots}, answer: '{{right}}', choose: first}}, "
    experiment = written(
        data=f"""
  items: {{file: {data}}}
  shown: {{file: {examples}, columns: {{right: {{pick: classes, at: answer_index}}}}}}
""",
        prompts="{question: {text: '{prompt}'}}",
        arms="{t: {train: [{rows: items, prompt: question, answer: ' x'}]}}",
        evaluations=f"""
  asked: {{rows: items, prompt: question, options: classes, answer: answer_index, arms: [base],
    {shown if n_shots else ""} delimiter: '{delimiter}'}}
""",
        claims="{c: {criteria: ['mean(acc(asked, base)) > 0.5']}}",
    )
    settings = LocalSettings.model_validate({"model": str(model), "device": "cpu"})
    backend = open_backend("local", settings)
    design = experiment.design(backend.tokenize)
    (evaluation,) = design.evaluations
    results = {r.id: r for r in backend.score(backend.base_model, evaluation.queries)}  # pyright: ignore[reportArgumentType]
    answers = answered(design, lambda query, *_: results[query.id])
    observations = Observations(experiment.observe(answers))

    assert len(theirs) == len(evaluation.queries)
    for metric in ("acc", "acc_norm"):
        found = observations.sample(metric, "asked", "base")
        assert (found.low == found.high).all()
        assert list(found.low[0]) == [their[metric] for their in theirs]
        assert found.low.mean() == pytest.approx(means[metric], abs=1e-12)
    for query, their in zip(evaluation.queries, theirs, strict=True):
        assert isinstance(query, ScoringQuery)
        assert [[query.prompt, text] for text in query.candidates.values()] == their["arguments"]
        ours = [results[query.id].candidates[label].total.low for label in query.candidates]
        assert ours == pytest.approx(their["log_likelihoods"], abs=1e-4)
