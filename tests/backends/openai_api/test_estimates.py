"""What is shown and checked before anything is spent."""

from pathlib import Path

import httpx2
import pytest

from backends.data import GenerationQuery, Message, ScoringQuery
from backends.errors import DataError, UnsupportedError
from backends.interface import Estimate
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.connection import Connection
from backends.openai_api.fine_tuning import FineTuning, likely_epochs
from backends.openai_api.prices import price_of
from backends.openai_api.query_estimates import estimate_queries
from backends.openai_api.settings import JobSettings, OpenAISettings, ScoringSettings, TailSettings
from tests.backends.openai_api.toy_service import ROOT, ToyService
from tests.jobs import a_job
from tests.server import training_file

MINI = "gpt-4.1-mini-2025-04-14"
QUERY = ScoringQuery(
    id="q", messages=(Message(role="user", content="abc"),), candidates={"a": "xy", "b": "z"}
)


def encode(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def fine_tuning(monkeypatch: pytest.MonkeyPatch, **settings: object) -> FineTuning:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    chosen = OpenAISettings.model_validate({"base_url": "http://127.0.0.1:9/v1"} | settings)
    return FineTuning(Connection(chosen), chosen)


def test_a_known_number_of_epochs_has_one_price(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tuning = fine_tuning(monkeypatch, model=MINI, job=JobSettings(n_epochs=4).model_dump())
    estimate = tuning.estimate(a_job(tmp_path, training_file(10)), encode)
    assert estimate.tokens % 4 == 0
    cost = 5.0 * estimate.tokens / 1e6
    assert estimate.usd == pytest.approx((cost, cost))


def test_auto_epochs_have_a_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    estimate = fine_tuning(monkeypatch, model=MINI).estimate(
        a_job(tmp_path, training_file(10)), encode
    )
    assert estimate.usd is not None
    assert estimate.usd[1] == pytest.approx(estimate.usd[0] * 10 / 3)  # 3 to 10 epochs


@pytest.mark.parametrize(("n", "epochs"), [(10, 10), (34, 3), (100, 3), (8334, 2), (50_000, 1)])
def test_epochs_as_the_service_has_chosen_them(n: int, epochs: int) -> None:
    assert likely_epochs(n) == epochs


def test_an_unknown_model_has_tokens_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    estimate = fine_tuning(monkeypatch, model="llama").estimate(
        a_job(tmp_path, training_file(10)), encode
    )
    assert estimate.tokens > 0
    assert estimate.usd is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (training_file(9), "9 examples; the service takes 10 or more"),
        (training_file(10) + b'{"messages": [{"role": "user"}]}\n', "line 11: messages.0.content"),
        (b'{"prompt": "a", "completion": "b"}\n' * 10, "line 1: .*fine-tuned on messages"),
    ],
)
def test_a_file_that_the_service_would_not_take_is_refused_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"train\.jsonl.*{message}"):
        fine_tuning(monkeypatch, model=MINI).estimate(a_job(tmp_path, content), encode)


def test_files_as_editors_and_sdks_leave_them_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tuning = fine_tuning(monkeypatch, model=MINI)
    plain = tuning.estimate(a_job(tmp_path, training_file(10)), encode)
    assert tuning.estimate(a_job(tmp_path, b"\xef\xbb\xbf" + training_file(10)), encode) == plain
    assert tuning.estimate(a_job(tmp_path, training_file(10) + b"\n"), encode) == plain
    rows = (
        '{"messages":[{"role":"developer","content":"Be brief"},{"role":"user","name":"Alice","content":'
        '[{"type":"text","text":"Hi?"}]},{"role":"assistant","content":"Yo","refusal":null,"audio":null}]}\n'
        '{"messages":[{"role":"assistant","content":"Yo"}]}\n'
    )
    meant = (
        '{"messages":[{"role":"system","content":"Be brief"},{"role":"user","content":"Hi?"},'
        '{"role":"assistant","content":"Yo"}]}\n{"messages":[{"role":"assistant","content":"Yo"}]}\n'
    )
    given, wanted = (
        tuning.estimate(a_job(tmp_path, training_file(10) + two.encode()), encode)
        for two in (rows, meant)
    )
    assert given == wanted


def test_learning_prompts_is_refused_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = a_job(tmp_path, training_file(10), loss_on="prompt_and_completion")
    with pytest.raises(UnsupportedError, match="--backend local"):
        fine_tuning(monkeypatch, model=MINI).estimate(job, encode)


def test_queries_are_counted_and_priced() -> None:
    estimate = estimate_queries([QUERY], f"ft:{MINI}:o::x", encode, ScoringSettings())
    sent, answered = 3 + 4 + 3, 2
    assert (estimate.tokens, estimate.requests) == (sent + answered, 1)
    cost = (0.8 * sent + 3.2 * answered) / 1e6
    assert estimate.usd == pytest.approx((cost, cost))


def test_a_batch_is_half_the_price() -> None:
    whole = estimate_queries([QUERY], MINI, encode, ScoringSettings()).usd
    half = estimate_queries([QUERY], MINI, encode, ScoringSettings(batch=True)).usd
    assert whole is not None
    assert half == pytest.approx((whole[0] / 2, whole[1] / 2))


def test_sampling_for_the_tail_makes_the_price_a_range() -> None:
    sampling = ScoringSettings(tail=TailSettings(sample=True, n_samples=100))
    usd = estimate_queries([QUERY], MINI, encode, sampling).usd
    assert usd is not None
    assert usd[1] > 50 * usd[0]


def test_texts_count_every_sample() -> None:
    query = GenerationQuery(id="g", prompt="abc", max_tokens=5, temperature=1.0, n_samples=4)
    assert estimate_queries([query], "m", encode, ScoringSettings()).tokens == 3 + 20


@pytest.mark.parametrize("candidates", [{"a": "x", "b": "x"}, {"a": ""}])
def test_candidates_that_cannot_be_told_apart_are_refused(candidates: dict[str, str]) -> None:
    query = ScoringQuery(id="q9", prompt="p", candidates=candidates)
    with pytest.raises(DataError, match="query 'q9'"):
        estimate_queries([query], "m", encode, ScoringSettings())


def test_snapshots_and_tuned_models_have_their_bases_price() -> None:
    assert price_of("gpt-4.1") == price_of("gpt-4.1-2025-04-14") != price_of(MINI)
    assert price_of(f"ft:{MINI}:org::x") == price_of("gpt-4.1-mini")
    assert price_of("gpt-4.1-nano") is None
    assert price_of("llama") is None


def test_a_prefill_is_refused_before_any_work_where_the_server_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = OpenAISettings(base_url=f"{ROOT}/v1", model=MINI, tokenizer="o200k_base")
    service = ToyService(echo=False)
    backend = OpenAIBackend(settings, httpx2.AsyncClient(transport=service.transport()))
    assert not backend.capabilities.prefill
    begun = GenerationQuery(id="g1", messages=QUERY.messages, prefill="Well,", max_tokens=2)
    with pytest.raises(UnsupportedError, match=r"query 'g1': .*prefill"):
        backend.estimate([begun])
    assert [path for path, _ in service.requests] == ["/tokenize"]


def test_many_estimates_are_one_in_which_the_unknown_stays_unknown() -> None:
    one = Estimate(tokens=2, requests=1, usd=(1.0, 2.0), seconds=3.0, memory_bytes=10, cut=1)
    other = Estimate(tokens=3, usd=(0.5, 0.5), seconds=4.0, memory_bytes=7)
    assert Estimate.of_all([one, other]) == Estimate(5, 1, (1.5, 2.5), 7.0, 10, 1)
    assert Estimate.of_all([one, Estimate(tokens=1)]) == Estimate(tokens=3, requests=1, cut=1)
    assert Estimate.of_all([]) == Estimate(tokens=0)


def test_an_estimate_says_what_is_known_of_it() -> None:
    assert Estimate(1500).words == "1,500 tokens"
    priced = Estimate(1500, requests=20, usd=(0.5, 2.0))
    assert priced.words == "1,500 tokens, 20 requests, $0.50 to $2.00"
    here = Estimate(3, usd=(1.0, 1.0), seconds=300, memory_bytes=2_340_000_000)
    assert here.words == "3 tokens, about $1.00, very roughly 5 min, 2.3 GB of memory"
    times = (0.1, 60, 600, 9000)
    assert [Estimate(0, seconds=s).words.split("roughly ")[1] for s in times] == [
        "1 s",
        "60 s",
        "10 min",
        "2.5 h",
    ]
