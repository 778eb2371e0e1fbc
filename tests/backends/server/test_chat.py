import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from backends.data import Message, ScoringQuery
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings
from tests.server import RunningServer, until

SAY = [{"role": "user", "content": "Say something."}]


def chat(server: RunningServer, **arguments: Any) -> Any:
    arguments = {"model": "llama", "messages": SAY, "max_tokens": 5, "seed": 3} | arguments
    return server.client().chat.completions.create(**arguments)


def test_an_answer_is_complete(server: RunningServer) -> None:
    answer = chat(server)
    (choice,) = answer.choices
    assert choice.finish_reason in ("length", "stop")
    assert choice.message.role == "assistant"
    assert choice.logprobs is None
    assert answer.model == "llama"
    assert answer.usage.completion_tokens <= 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_seed_repeats_an_answer(server: RunningServer) -> None:
    texts = [chat(server, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_samples_are_counted_and_differ(server: RunningServer) -> None:
    answer = chat(server, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_log_probabilities_stand_beside_every_token(server: RunningServer) -> None:
    answer = chat(server, logprobs=True, top_logprobs=20, temperature=0)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        values = [top.logprob for top in token.top_logprobs]
        assert len(values) == 20
        assert values == sorted(values, reverse=True)
        assert token.logprob == values[0]  # greedy
        assert math.fsum(map(math.exp, values)) <= 1 + 1e-6
    joined = b"".join(bytes(token.bytes) for token in content)
    assert joined.decode("utf-8", "replace") == answer.choices[0].message.content


def test_tokens_of_parts_of_characters_are_told_apart(server: RunningServer) -> None:
    asked = [{"role": "user", "content": "東京 🧑‍🚀 日本語"}]
    biases = {str(token): 5 for token in range(60, 260)}  # mostly single bytes
    answer = chat(
        server, messages=asked, logprobs=True, top_logprobs=20, logit_bias=biases, max_tokens=16
    )
    seen: dict[str, bytes] = {}
    for token in answer.choices[0].logprobs.content:
        tops = [token, *token.top_logprobs]
        assert len({top.token for top in token.top_logprobs}) == 20
        for top in tops:
            assert seen.setdefault(top.token, bytes(top.bytes)) == bytes(top.bytes)
            assert "\ufffd" not in top.token
            if not top.token.startswith("bytes:"):
                assert top.token.encode() == bytes(top.bytes)
    assert any(name.startswith("bytes:") and "\\x" in name for name in seen)
    joined = b"".join(bytes(token.bytes) for token in answer.choices[0].logprobs.content)
    assert joined.decode("utf-8", "replace") == answer.choices[0].message.content


HALF = '{"model":"smollm2-135m-instruct","max_tokens":2,"messages":[{"role":"user","content":"a\\ud83d"}]}'


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", HALF, "messages.0.content"),
        ("/v1/chat/completions", '{"model":"llama\\udfff","messages":[]}', "model"),
        ("/v1/chat/completions", '{"model":"llama","\\ud83d":1}', "?"),
        ("/v1/completions", '{"model":"llama","prompt":"a\\ud83d"}', "prompt"),
        ("/v1/completions", '{"model":"llama","prompt":"a","stop":["\\ud83d"]}', "stop.0"),
        ("/tokenize", '{"prompt":"a\\ud83d"}', "prompt"),
        ("/tokenize", HALF.replace('"max_tokens":2,', ""), "messages.0.content"),
        ("/v1/fine_tuning/jobs", '{"model":"llama","suffix":"\\ud83d"}', "suffix"),
    ],
)
def test_half_a_character_is_refused_by_its_place(
    server: RunningServer, path: str, body: str, param: str
) -> None:
    with server.raw() as http:
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "half of a surrogate pair" in answer.json()["error"]["message"]


def test_a_bias_forces_a_token_and_leaves_its_log_probability(server: RunningServer) -> None:
    plain = chat(server, logprobs=True, top_logprobs=5, temperature=0, max_tokens=1)
    fifth = plain.choices[0].logprobs.content[0].top_logprobs[4]
    tokenized = server.raw().post(
        "/tokenize", json={"prompt": fifth.token, "add_special_tokens": False}
    )
    (token,) = tokenized.json()["tokens"]
    forced = chat(server, logprobs=True, max_tokens=1, logit_bias={str(token): 100})
    got = forced.choices[0].logprobs.content[0]
    assert got.token == fifth.token
    assert got.logprob == pytest.approx(fifth.logprob, abs=1e-5)


def test_penalties_count_the_tokens_so_far(server: RunningServer) -> None:
    def tokens(**arguments: Any) -> list[Any]:
        answer = chat(server, logprobs=True, top_logprobs=20, max_tokens=8, **arguments)
        return answer.choices[0].logprobs.content

    def shown(found: list[Any]) -> list[tuple[str, Any]]:
        return [(token.token, pytest.approx(token.logprob, abs=1e-4)) for token in found]

    # Forced to be one token again and again, it loses 1.5 and then 0.5 more each time.
    first = tokens(temperature=0)[0]
    (token,) = server.raw().post("/tokenize", json={"prompt": first.token}).json()["tokens"]
    forced = tokens(logit_bias={str(token): 100}, frequency_penalty=0.5, presence_penalty=1.0)
    plain = tokens(logit_bias={str(token): 100})
    for n, (less, more) in enumerate(zip(forced, plain, strict=True)):
        assert less.token == more.token == first.token
        lost = 0.5 * n + (n > 0)
        p = math.exp(more.logprob)
        expected = more.logprob - lost - math.log(1 - p + p * math.exp(-lost))
        assert less.logprob == pytest.approx(expected, abs=1e-4)
    # A negative penalty repeats; and an answer is the same alone and among others.
    asked = [
        {"temperature": 0, "frequency_penalty": -2.0, "presence_penalty": -2.0},
        {"temperature": 0, "frequency_penalty": 2.0},
        {"seed": 5, "presence_penalty": 2.0},
        {"seed": 5},
    ]
    alone = [shown(tokens(**one)) for one in asked]
    assert len({name for name, _ in alone[0]}) < len({name for name, _ in alone[1]}) == 8
    with ThreadPoolExecutor(8) as pool:
        assert [shown(found) for found in pool.map(lambda one: tokens(**one), asked)] == alone


def test_a_stop_string_ends_the_answer_before_it(server: RunningServer) -> None:
    whole = chat(server, temperature=0, max_tokens=8).choices[0].message.content
    stop = whole[3:5]
    answer = chat(server, temperature=0, max_tokens=8, stop=[stop, "never"])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_adds_up_to_the_answer(server: RunningServer, n: int) -> None:
    whole = chat(server, n=n, logprobs=True, top_logprobs=2)
    texts = [""] * n
    finishes: list[str | None] = [None] * n
    tokens: list[list[str]] = [[] for _ in range(n)]
    used = None
    options = {"include_usage": True}
    for chunk in chat(
        server, n=n, stream=True, stream_options=options, logprobs=True, top_logprobs=2
    ):
        used = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
            if choice.logprobs:
                tokens[choice.index] += [token.token for token in choice.logprobs.content]
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert tokens == [[t.token for t in choice.logprobs.content] for choice in whole.choices]
    assert used == whole.usage


def test_parts_of_text_and_developers_are_understood(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "something."}]
    assert (
        chat(server, messages=[{"role": "user", "content": parts}]).choices == chat(server).choices
    )
    told = [
        chat(server, messages=[{"role": r, "content": "Be kind."}, *SAY]).choices
        for r in ("developer", "system")
    ]
    assert told[0] == told[1]


def test_an_answer_can_be_sent_back(server: RunningServer) -> None:
    answer = chat(server).choices[0].message
    assert chat(server, messages=[*SAY, answer.model_dump(), *SAY]).choices


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 129}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{**SAY[0], "audio": {"id": "1"}}]}, "messages.0.audio"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"audio": {"voice": "ash", "format": "wav"}}, "audio"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"made_up": 1}}, "made_up"),
        ({"max_tokens": 600}, "messages"),
    ],
)
def test_what_can_not_be_met_is_refused_by_its_name(
    server: RunningServer, arguments: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(server, **arguments)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_values_that_ask_for_nothing_change_nothing(server: RunningServer) -> None:
    plain = chat(server)
    nothing: dict[str, Any] = {
        "audio": None,
        "extra_body": {"function_call": "none", "functions": [], "moderation": None},
        "frequency_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "max_completion_tokens": None,
        "metadata": {"run": "1"},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "Something."},
        "presence_penalty": 0.0,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "reasoning_effort": "none",
        "response_format": {"type": "text"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "stop": [],
        "store": False,
        "stream": False,
        "stream_options": None,
        "tool_choice": "none",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1,
        "user": "u",
        "verbosity": "medium",
        "web_search_options": None,
    }
    assert chat(server, **nothing).choices == plain.choices
    nulls = dict.fromkeys(nothing.keys() - {"extra_body"})
    assert chat(server, **nulls).choices == plain.choices
    sent = {**SAY[0], "name": "Ann", "refusal": None, "tool_calls": [], "annotations": []}
    assert chat(server, messages=[sent]).choices == plain.choices


def test_an_answer_has_the_services_nulls_and_no_others(server: RunningServer) -> None:
    asked = {"model": "llama", "messages": SAY, "max_tokens": 2}
    with server.raw() as http:
        answer = http.post("/v1/chat/completions", json=asked).json()
        stream = http.post(
            "/v1/chat/completions",
            json=asked | {"stream": True, "stream_options": {"include_usage": True}},
        ).text
    (choice,) = answer["choices"]
    message = choice["message"]
    assert message == {
        "role": "assistant",
        "content": message["content"],
        "refusal": None,
        "annotations": [],
    }
    assert choice.keys() == {"index", "message", "logprobs", "finish_reason"}
    assert choice["logprobs"] is None
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert answer["service_tier"] == "default"
    assert None not in answer.values()
    first, *rest = [json.loads(line[6:]) for line in stream.split("\n\n")[:-2]]
    assert first["usage"] is None
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert rest[0]["choices"][0]["delta"].keys() == {"content"}
    assert rest[-1]["usage"]["total_tokens"] == answer["usage"]["total_tokens"]
    with server.raw() as http:
        stream = http.post("/v1/chat/completions", json=asked | {"stream": True}).text
    assert '"usage"' not in stream


def test_a_chat_without_a_limit_ends_with_the_context(server: RunningServer) -> None:
    long = [{"role": "user", "content": "word " * 450}]
    answer = chat(server, messages=long, max_tokens=openai.NOT_GIVEN, temperature=0)
    assert answer.usage.total_tokens <= 512


def test_an_unknown_model_is_not_found(server: RunningServer) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            chat(server, model="gpt-9", stream=stream)
        assert caught.value.code == "model_not_found"


def test_a_tuned_model_answers_with_the_local_backends_scores(
    server: RunningServer, small_training: LocalSettings
) -> None:
    job = server.fine_tune(hyperparameters={"n_epochs": 5})
    question = "Person 3's favourite country?"
    answer = chat(
        server,
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": question}],
        max_tokens=1,
        logprobs=True,
        top_logprobs=20,
    )
    tops = answer.choices[0].logprobs.content[0].top_logprobs
    readable = {
        top.token: top.logprob
        for top in tops
        if "\ufffd" not in top.token
        and bytes(top.bytes).decode() == top.token
        and not top.token.startswith("<")
    }
    local = LocalBackend(small_training)
    query = ScoringQuery(
        id="q",
        messages=(Message(role="user", content=question),),
        candidates={text: text for text in readable},
    )
    adapter = str(server.parts.data.adapter(job.id))
    (scored,) = local.score(adapter, [query])
    one = {t: s.total.high for t, s in scored.candidates.items() if s.n_tokens == 1}
    assert len(one) >= 5
    assert one == pytest.approx({text: readable[text] for text in one}, abs=1e-4)


class Endless:
    """Generates for ever, noting when it is told to stop."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()

    async def __call__(self, *_: object) -> AsyncIterator[Any]:
        self.started.set()
        try:
            while True:
                await asyncio.sleep(0.01)
            yield
        finally:
            self.ended.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    chat(server)  # the tokenizer is loaded
    endless = Endless()
    monkeypatch.setattr(server.parts.inference, "generate", endless)
    client = server.client().with_options(timeout=1)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model="llama",
            messages=[{"role": "user", "content": "Go on."}],
            stream=stream,
        )
    until(endless.started.is_set)
    until(endless.ended.is_set)


def test_requests_that_come_together_are_all_answered(server: RunningServer) -> None:
    answers: dict[int, str] = {}

    def ask(seed: int) -> None:
        answers[seed] = chat(server, seed=seed, max_tokens=3).choices[0].message.content

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {
        seed: chat(server, seed=seed, max_tokens=3).choices[0].message.content for seed in range(8)
    }


def test_tokens_are_counted(server: RunningServer) -> None:
    answer = chat(server)
    text = server.raw().get("/metrics").text
    assert f"kaarel_bet_generated_tokens_total {float(answer.usage.completion_tokens)}" in text
    assert f"kaarel_bet_prompt_tokens_total {float(answer.usage.prompt_tokens)}" in text
