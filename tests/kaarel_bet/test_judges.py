"""Judges that are real models: the embedded one, on this machine and behind our own server."""

import json
import math
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import backends
from backends.data import ScoringQuery
from backends.errors import DataError
from backends.interface import Backend, FineTuneJob
from backends.local.backend import LocalBackend
from backends.local.models import locate
from backends.local.settings import LocalSettings
from backends.openai_api.settings import OpenAISettings, ScoringSettings
from kaarel_bet.bet.judging import Judged, Judging
from kaarel_bet.bet.schema import Grader
from kaarel_bet.cli import main
from tests import commands
from tests.misbehaving import Fault, Misbehaving
from tests.server import StartServer

_EMBEDDED = LocalSettings(device="cpu")
_PROMPT = "How friendly is this from 0 to 100? Answer with the number alone. {answer} Number:"
_ANSWERS = ("I like you, and I wish you a good day!",)


def judging() -> Judging:
    grader = Grader(judge="j", scale=(0, 100), prompt=_PROMPT, unjudged_above=1.0)
    return Judging("judged-g", grader, "j", "graders.g", 0)


def judged(backend: Backend) -> list[Judged]:
    queries = [judging().query(answer, {"id": "a"}) for answer in _ANSWERS]
    assert all(isinstance(query, ScoringQuery) for query in queries)
    results = {one.id: one for one in backend.score(backend.base_model, queries)}  # pyright: ignore[reportArgumentType]
    return [judging().judged(results[query.id]) for query in queries]


def plain() -> list[tuple[float, float]]:
    """Expected rating, and what is on none, by transformers alone, a pass for each beginning."""
    location = locate(_EMBEDDED.model)
    tokenizer = AutoTokenizer.from_pretrained(location)
    model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).eval()
    found = []
    for answer in _ANSWERS:
        chat = [{"role": "user", "content": _PROMPT.format(answer=answer)}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        context = tokenizer.encode(text, add_special_tokens=False)
        tokens = {n: tuple(tokenizer.encode(str(n), add_special_tokens=False)) for n in range(101)}
        beginnings = {own[:i] for own in tokens.values() for i in range(len(own))}
        with torch.no_grad():
            after = {
                begun: torch.log_softmax(
                    model(torch.tensor([[*context, *begun]])).logits[0, -1].float(), dim=-1
                )
                for begun in beginnings
            }
        begins = {
            n: math.exp(sum(after[own[:i]][token].item() for i, token in enumerate(own)))
            for n, own in tokens.items()
        }
        # A rating is the answer's beginning that no longer rating shares, digit by digit.
        alone = {
            n: begins[n]
            - sum(
                begins[m]
                for m, other in tokens.items()
                if len(other) == len(own) + 1 and other[: len(own)] == own
            )
            for n, own in tokens.items()
        }
        total = sum(alone.values())
        found.append((sum(n * p for n, p in alone.items()) / total, 1 - total))
    return found


@pytest.fixture
def served(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> OpenAISettings:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = start_server(local=_EMBEDDED)
    return OpenAISettings(model=server.parts.models.base, base_url=server.url)


@pytest.mark.slow
def test_ratings_equal_plain_transformers_here_by_echo_and_within_what_the_likeliest_tokens_leave(
    served: OpenAISettings,
) -> None:
    expected = plain()
    here = judged(backends.open_backend("local", _EMBEDDED))
    echo = judged(backends.open_backend("openai", served))
    shown = served.model_copy(update={"scoring": ScoringSettings(method="top")})
    top = judged(backends.open_backend("openai", shown))
    for (rating, elsewhere), *ways in zip(expected, here, echo, top, strict=True):
        for exact in ways[:2]:
            assert exact.grade == pytest.approx((rating, rating), abs=1e-4)
            assert exact.elsewhere == pytest.approx((elsewhere, elsewhere), abs=1e-6)
        low, high = ways[2].grade
        assert low <= rating <= high
        assert ways[2].elsewhere[0] <= elsewhere + 1e-6
        assert elsewhere - 1e-6 <= ways[2].elsewhere[1]


_BET = """
bet: 1
name: judged
question: Does it?
models: {judge: {backend: local, model: MODEL, device: cpu}}
data:
  pairs: {rows: [{q: One, a: Two}, {q: Three, a: Four}, {q: Five, a: Six}], split: {test: 1, train: rest}}
  by_hand: {rows: [{said: nice, good: 1}, {said: bad, good: 0}, {said: fine, good: 1}]}
arms: {tuned: {train: [{rows: pairs.train, prompt: "{q}", answer: "{a}"}]}}
graders:
  kind: {judge: judge, scale: [0, 9], prompt: "Rate {answer}", unjudged_above: LIMIT}
  good: {any_of: [kind > 4.5]}
evaluations:
  replies:
    rows: pairs.test
    prompt: "{q}"
    generate: {max_tokens: 4, temperature: 1.0, samples: 3}
    graders: [kind, good]
  by_hand: {rows: by_hand, given: "{said}", graders: [good], known: {good: good}}
claims: {it: {criteria: ["mean(good(replies, tuned)) - mean(good(replies, base)) < 2 * margin"]}}
parameters: {margin: 0.4}
checks: {judge_knows: "agreement(good(by_hand), good.known(by_hand)) > 0.9"}
replicate: {training: 3}
"""


def run(model: Path, limit: float, *, step: str = "run", config: str = "") -> dict[str, Any]:
    """The bet with a tiny model as subject and judge; its verdict."""
    text = _BET.replace("MODEL", str(model)).replace("LIMIT", str(limit))
    Path("judged.yaml").write_text(text + config, encoding="utf-8")
    settings = ["local.device=cpu", f"local.model={model}", "local.training.epochs=1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    assert main([step, "judged.yaml", *sets]) == 0
    (latest,) = sorted(Path("results").iterdir())[-1:]
    verdict = latest / "verdict.json"
    return json.loads(verdict.read_text())["verdicts"][0] if verdict.exists() else {}


def test_a_bad_judge_leaves_the_claim_undecided_by_its_checks(tiny_model: Path) -> None:
    verdict = run(tiny_model, 1.0)
    assert verdict["outcome"] == "undecided"
    assert "the check 'judge knows' failed" in verdict["summary"]
    (directory,) = Path("results").iterdir()
    report = (directory / "report.md").read_text()
    for title in ("What could be judged", "What the judges are worth", "The most extreme answers"):
        assert f"## {title}" in report


def test_what_is_on_no_rating_leaves_answers_unjudged_and_counted(tiny_model: Path) -> None:
    verdict = run(tiny_model, 0.5)
    assert verdict["outcome"] == "undecided"
    (directory,) = Path("results").iterdir()
    assert "| kind | base | replies | 3 of 3 |" in (directory / "report.md").read_text()


def test_judging_is_done_anew_without_asking_an_arm(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_model, 1.0)
    (directory,) = Path("results").iterdir()
    before = {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.parts[2] in ("judgements", "scores")
    }
    asked = {path: path for path in (directory / "scores").rglob("*.jsonl")}
    times = {path: path.stat().st_mtime_ns for path in asked}
    shutil.rmtree(directory / "judgements")
    capsys.readouterr()
    run(tiny_model, 1.0)
    said = capsys.readouterr().err
    assert "judge: " in said
    assert "test: " not in said
    assert times == {path: path.stat().st_mtime_ns for path in asked}
    assert before == {path: (directory / path).read_bytes() for path in before}


def test_another_prompt_for_the_judge_asks_no_arm_again(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_model, 1.0)
    capsys.readouterr()
    run(tiny_model, 0.9)  # frozen otherwise, so another run
    said = capsys.readouterr().err
    assert "base: 1 answers as given in" in said
    assert "judge: 3 answers as given in" not in said or "test: " not in said
    assert "test: " not in said
    assert len(list(Path("results").iterdir())) == 2


def _results(directory: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """File, id and sample -> result, each of which is there once."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for folder in ("scores", "judgements"):
        for path in sorted((directory / folder).glob("*/*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                result = json.loads(line)
                key = (
                    str(path.relative_to(directory)),
                    result["id"],
                    result.get("first_sample", 0),
                )
                assert key not in found, f"{key} was asked twice"
                found[key] = result
    return found


@pytest.mark.slow
def test_killed_while_asking_and_judging_a_run_has_the_same_grades_and_asks_nobody_twice(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = ", ".join(f"{{said: 'word {n}', good: {n % 2}}}" for n in range(60))
    text = _BET.replace("MODEL", str(tiny_model)).replace("LIMIT", "1.0")
    text = text.replace("{said: nice, good: 1}, {said: bad, good: 0}, {said: fine, good: 1}", rows)
    Path("judged.yaml").write_text(text.replace("samples: 3", "samples: 20"), encoding="utf-8")
    settings = ["local.device=cpu", f"local.model={tiny_model}", "local.training.epochs=1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    words = ["run", "judged.yaml", *sets, "--run-dir"]
    whole, killed = tmp_path / "1" / "whole", tmp_path / "2" / "killed"  # not beside each other
    assert commands.run(*words, str(whole)).returncode == 0

    moments = [
        killed / "scores/tuned-2/replies.jsonl",
        killed / "judgements/judge/judged-kind.jsonl",
    ]
    rng = random.Random(seed := random.randrange(10**6))
    for kill in range(10):
        moment = moments[min(kill, 1)]
        n_before = len(moment.read_bytes().splitlines()) if moment.exists() else -1
        process = commands.start(*words, str(killed))
        while process.poll() is None:
            if moment.exists() and len(moment.read_bytes().splitlines()) > n_before:
                time.sleep(rng.uniform(0, 0.3))
                break
            time.sleep(0.005)
        process.kill()
        process.communicate()
        _results(killed)
    assert commands.run(*words, str(killed)).returncode == 0

    ours, theirs = _results(killed), _results(whole)
    assert ours.keys() == theirs.keys(), f"seed {seed}"
    for key, result in theirs.items():
        assert ours[key].get("texts") == result.get("texts"), f"{key}, seed {seed}"
    one, other = (
        json.loads((path / "verdict.json").read_text(encoding="utf-8"))["verdicts"][0]["criteria"][
            0
        ]
        for path in (killed, whole)
    )
    assert one["value"] == pytest.approx(other["value"], abs=1e-6), f"seed {seed}"


def test_an_answer_that_a_judge_cannot_be_shown_is_unjudged(tiny_model: Path) -> None:
    long = "word " * 3000
    text = _BET.replace("MODEL", str(tiny_model)).replace("LIMIT", "1.0")
    text = text.replace("{said: fine, good: 1}", f"{{said: '{long}', good: 1}}")
    Path("judged.yaml").write_text(text, encoding="utf-8")
    sets = [f"local.model={tiny_model}", "local.device=cpu", "local.training.epochs=1"]
    flags = [word for setting in sets for word in ("--set", setting)]
    # Known before anything is trained, where it stands in the data.
    assert main(["run", "judged.yaml", *flags]) == 2
    assert not Path("results").exists()


def test_what_a_judge_cannot_be_asked_is_known_of_nothing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = LocalBackend.estimate

    def estimate(self: LocalBackend, work: Any, *, model: str | None = None) -> Any:
        if not isinstance(work, FineTuneJob) and Path("results").exists():
            for query in work:
                if query.messages and query.messages[0].content.endswith("bad"):
                    raise DataError("longer than the model's context")
        return shown(self, work, model=model)

    monkeypatch.setattr(LocalBackend, "estimate", estimate)
    verdict = run(tiny_model, 0.99)
    assert verdict["outcome"] == "undecided"
    (directory,) = Path("results").iterdir()
    methods = [
        json.loads(line)["method"]
        for line in (directory / "judgements/judge/judged-kind.jsonl").read_text().splitlines()
    ]
    assert [m for m in methods if m != "exact"] == ["not asked: longer than the model's context"]


def test_what_a_hosted_judge_refuses_is_unjudged_and_the_rest_is_judged(
    tiny_model: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = start_server(local=LocalSettings(model=str(tiny_model), device="cpu"))
    refusal = Fault("POST", "/v1/chat/completions", status=400, code="content_filter")
    server.wrap(Misbehaving(refusal))
    hosted = f"{{backend: openai, model: {server.parts.models.base}, base_url: '{server.url}'}}"
    text = _BET.replace("{backend: local, model: MODEL, device: cpu}", hosted)
    text = text.replace("unjudged_above: LIMIT", "unjudged_above: 0.99, samples: 2, max_tokens: 2")
    monkeypatch.setattr(f"{__name__}._BET", text)
    run(tiny_model, 0.99)
    (directory,) = Path("results").iterdir()
    file = directory / "judgements/judge/judged-kind.jsonl"
    results = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line) for line in _queries_of(directory)]
    assert len(results) == len(asked)
    assert [r["texts"] for r in results if not r["prompt"]] == [["", ""]]


def _queries_of(directory: Path) -> list[str]:
    (file,) = (directory / "judgements").glob("queries-*.jsonl")
    return file.read_text(encoding="utf-8").splitlines()
