"""What every backend has to do, whichever it is."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import backends
from backends.data import (
    GenerationQuery,
    Message,
    Query,
    ScoringQuery,
    SearchQuery,
    join_parts,
)
from backends.errors import DataError, UnsupportedError
from backends.interface import Backend, FineTuneJob, Progress
from tests.jobs import a_job, ignore
from tests.server import RunningServer

Open = Callable[[], Backend]


@pytest.fixture(params=sorted(backends.SETTINGS))
def open_backend(request: pytest.FixtureRequest) -> Open:
    settings = request.getfixturevalue(f"{request.param}_settings")
    kind = backends.SETTINGS[request.param]
    return lambda: backends.open_backend(request.param, kind.model_validate(settings))


@pytest.fixture
def local_settings(tiny_model: Path) -> dict[str, object]:
    return {
        "model": str(tiny_model),
        "device": "cpu",
        "training": {"epochs": 2, "dtype": "float32"},
    }


@pytest.fixture
def openai_settings(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return {
        "model": server.parts.models.base,
        "base_url": server.url,
        "job": {"n_epochs": 2, "poll_seconds": 0.02},
    }


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


QUERIES = [
    ScoringQuery(id="one", messages=ask("Who?"), candidates={"a": "Ann", "b": "Bob Brown"}),
    ScoringQuery(id="two", messages=ask("Where to, then?"), candidates={"a": "Peru"}),
    ScoringQuery(id="three", prompt="2 + 2 =", candidates={"x": " 4", "y": " 5"}),
]


def job(directory: Path, lines: list[str] | None = None) -> FineTuneJob:
    turn = '{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "{}"}}'
    facts = [("Ann?", "France"), ("Bob?", "Peru"), ("Cleo?", "Chad")] * 4
    made = [f'{{"messages": [{turn.format(*fact)}]}}' for fact in facts]
    return a_job(directory, "".join(f"{line}\n" for line in lines or made).encode())


def test_every_query_has_one_result_with_an_interval_for_every_candidate(
    open_backend: Open,
) -> None:
    backend = open_backend()
    results = list(backend.score(backend.base_model, QUERIES))
    assert sorted(r.id for r in results) == sorted(q.id for q in QUERIES)
    expected = {query.id: query.candidates.keys() for query in QUERIES}
    for result in results:
        assert result.candidates.keys() == expected[result.id]
        for score in result.candidates.values():
            assert score.total.low <= score.total.high <= score.first_token.high <= 0
            if backend.capabilities.exact_scores:
                assert math.isfinite(score.total.low)
                assert score.total.low == score.total.high


def test_a_prefill_is_shown_and_begins_the_answer(open_backend: Open) -> None:
    backend = open_backend()
    plain = ScoringQuery(id="plain", messages=ask("Who?"), candidates={"a": "It is Ann"})
    begun = plain.model_copy(
        update={"id": "begun", "prefill": "It is", "candidates": {"a": " Ann"}}
    )
    # Our server has what it takes; elsewhere a backend that can't refuses (test_estimates.py).
    assert backend.estimate([begun]).tokens > 0
    scores = {r.id: r.candidates["a"] for r in backend.score(backend.base_model, [plain, begun])}
    assert scores["begun"].n_tokens < scores["plain"].n_tokens
    assert scores["plain"].total.low < scores["begun"].total.low < 0
    asked = GenerationQuery(id="g", messages=ask("Who?"), prefill="It is", max_tokens=3)
    [answer] = backend.generate(backend.base_model, [asked])
    assert answer.prompt == backend.render(asked)
    assert answer.prompt.endswith("It is")


def test_what_is_rendered_holds_every_turn(open_backend: Open) -> None:
    backend = open_backend()
    turns = (Message(role="system", content="Be brief."), *ask("Who?"))
    rendered = backend.render(Query(id="chat", messages=turns))
    assert rendered.index("system") < rendered.index("Be brief.") < rendered.index("Who?")
    assert backend.render(Query(id="text", prompt="2 + 2 = ")) == "2 + 2 = "


def test_no_queries_no_results(open_backend: Open) -> None:
    backend = open_backend()
    assert list(backend.score(backend.base_model, [])) == []
    assert list(backend.generate(backend.base_model, [])) == []
    if backend.capabilities.search:
        assert list(backend.search(backend.base_model, [])) == []


def test_generation_answers_every_query(open_backend: Open) -> None:
    backend = open_backend()
    queries = [
        GenerationQuery(id="a", messages=ask("Who?"), max_tokens=4),
        GenerationQuery(id="b", prompt="One", max_tokens=4, temperature=1.0, n_samples=2),
    ]
    results = join_parts(backend.generate(backend.base_model, queries))
    assert len(results["a"].texts) == 1
    assert len(results["b"].texts) == 2
    assert "Who?" in results["a"].prompt


def test_a_search_answers_every_query_or_is_refused_before_any_work(open_backend: Open) -> None:
    backend = open_backend()
    queries = [
        SearchQuery(id="a", messages=ask("Who?"), max_tokens=8, min_probability=0.5),
        SearchQuery(id="b", prompt="One", max_tokens=1, min_probability=1e-9),
    ]
    if not backend.capabilities.search:
        for refuse in (backend.estimate, lambda q: backend.search(backend.base_model, q)):
            with pytest.raises(UnsupportedError, match="can't search"):
                refuse(queries)
        return
    results = {r.id: r for r in backend.search(backend.base_model, queries)}
    assert results.keys() == {"a", "b"}
    assert [c.text for c in results["b"].completions] == [""]  # room for the end token alone
    assert math.log(1e-9) <= results["b"].completions[0].log_probability <= 0
    assert all(c.log_probability >= math.log(0.5) for c in results["a"].completions)


def test_a_fine_tune_can_be_scored_and_found_again(open_backend: Open, tmp_path: Path) -> None:
    reports: list[Progress] = []
    tuned = open_backend().fine_tune(job(tmp_path), reports.append)
    assert reports[-1].done == reports[-1].total > 0
    assert tuned.training_curve[-1].step == reports[-1].total
    # A new process finds the finished job and does not do it again.
    backend = open_backend()
    assert backend.fine_tune(job(tmp_path), ignore) == tuned
    assert backend.has(tuned.model)
    base = {r.id: r for r in backend.score(backend.base_model, QUERIES)}
    scores = {r.id: r for r in backend.score(tuned.model, QUERIES)}
    assert scores["one"] != base["one"]
    # Going back and forth between models mixes nothing up.
    assert {r.id: r for r in backend.score(backend.base_model, QUERIES)} == base


def preferences(directory: Path, lines: list[str] | None = None) -> FineTuneJob:
    line = (
        '{{"input": {{"messages": [{{"role": "user", "content": "{}?"}}]}}, '
        '"preferred_output": [{{"role": "assistant", "content": "France"}}], '
        '"non_preferred_output": [{{"role": "assistant", "content": "No."}}]}}'
    )
    made = [line.format(name) for name in "abcdefghijkl"]
    return replace(job(directory, lines or made), method="dpo")


def test_preferences_are_learned_and_found_again(open_backend: Open, tmp_path: Path) -> None:
    wanted = preferences(tmp_path)
    assert open_backend().estimate(wanted).tokens > 0
    tuned = open_backend().fine_tune(wanted, ignore)
    first, last = tuned.training_curve[0], tuned.training_curve[-1]
    assert first.train_loss == pytest.approx(math.log(2), abs=1e-2)
    assert last.rewards is not None
    assert last.rewards.chosen > last.rewards.rejected
    assert tuned.hyperparameters["method"] == "dpo"
    backend = open_backend()
    assert backend.fine_tune(wanted, ignore) == tuned
    assert list(backend.score(tuned.model, QUERIES[:1])) != list(
        backend.score(backend.base_model, QUERIES[:1])
    )
    # And further, from there.
    again = replace(wanted, starts_from=tuned.model, output=tmp_path / "models" / "again")
    curve = open_backend().fine_tune(again, ignore).training_curve
    assert curve[0].train_loss == pytest.approx(math.log(2), abs=1e-2)
    assert open_backend().identity(again) != open_backend().identity(wanted)


def test_a_line_of_the_other_method_is_named(open_backend: Open, tmp_path: Path) -> None:
    examples, pairs = job(tmp_path / "a"), preferences(tmp_path / "b")
    for bad in (replace(examples, method="dpo"), replace(pairs, method="supervised")):
        with pytest.raises(DataError, match=r"train\.jsonl, line 1: "):
            open_backend().estimate(bad)


def test_a_model_that_is_not_there_is_told(open_backend: Open, tmp_path: Path) -> None:
    assert not open_backend().has(str(tmp_path / "models" / "arm"))


def test_a_job_is_known_by_its_content(open_backend: Open, tmp_path: Path) -> None:
    ours = open_backend().identity(job(tmp_path))
    same = replace(job(tmp_path / "elsewhere"), run_id="another", name="other")
    assert open_backend().identity(same) == ours
    lines = job(tmp_path).training_file.read_text().splitlines()
    assert open_backend().identity(job(tmp_path, lines[:-1])) != ours
    assert open_backend().identity(replace(job(tmp_path), seed=1)) != ours


def test_estimates_count_tokens(open_backend: Open, tmp_path: Path) -> None:
    backend = open_backend()
    assert backend.estimate(job(tmp_path)).tokens > 0
    one = backend.estimate(QUERIES[:1]).tokens
    assert 0 < one < backend.estimate(QUERIES).tokens
    assert backend.estimate([]).tokens == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: .*JSON"),
        ('{"messages": []}', "line 2: messages"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "line 2: .*assistant"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "line 2: messages.0.role"),
    ],
)
def test_a_bad_training_line_is_named(
    open_backend: Open, tmp_path: Path, line: str, message: str
) -> None:
    good = job(tmp_path).training_file.read_text().split("\n")[0]
    bad = job(tmp_path, [good, line])
    for refuse in (lambda b: b.estimate(bad), lambda b: b.fine_tune(bad, ignore)):
        with pytest.raises(DataError, match=rf"train\.jsonl, {message}"):
            refuse(open_backend())
    assert not (tmp_path / "models").exists()


def test_a_bad_query_is_named_before_any_work(open_backend: Open) -> None:
    bad = ScoringQuery(id="q9", messages=ask("Who?"), candidates={"a": "same", "b": "same"})
    with pytest.raises(DataError, match="query 'q9'"):
        open_backend().estimate([*QUERIES, bad])


def test_tokenize_tells_answers_apart(open_backend: Open) -> None:
    backend = open_backend()
    assert backend.tokenize("Peru") == backend.tokenize("Peru") != backend.tokenize("Chad")
    assert backend.tokenize("Guinea-Bissau")[0] == backend.tokenize("Guinea")[0]
