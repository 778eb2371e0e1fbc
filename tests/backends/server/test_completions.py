from typing import Any

import jinja2
import openai
import pytest

from backends.data import Message, ScoringQuery
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings
from backends.openai_api.scoring.top import text_bytes
from tests.server import RunningServer


def complete(server: RunningServer, *, strict: bool = True, **arguments: Any) -> Any:
    arguments = {"model": "llama", "prompt": "One, two,", "max_tokens": 4, "seed": 3} | arguments
    return server.client(strict=strict).completions.create(**arguments)


def tokens_of(server: RunningServer, **body: Any) -> list[int]:
    answer = server.raw().post("/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == len(answer.json()["tokens"])
    assert answer.json()["max_model_len"] == 512
    return answer.json()["tokens"]


def test_several_texts_are_cut_into_tokens_at_once(server: RunningServer) -> None:
    texts = ["One, two,", "", "three"]
    answer = server.raw().post("/tokenize", json={"prompt": texts}).json()
    assert answer["tokens"] == [tokens_of(server, prompt=text) for text in texts]
    assert answer["count"] == sum(len(tokens) for tokens in answer["tokens"])
    bare = server.raw().post("/tokenize", json={"prompt": texts, "add_special_tokens": False})
    assert bare.json()["tokens"][0] == tokens_of(server, prompt=texts[0], add_special_tokens=False)
    assert server.raw().post("/tokenize", json={"prompt": []}).status_code == 400


def test_a_prompt_is_continued(server: RunningServer) -> None:
    answer = complete(server, max_tokens=openai.NOT_GIVEN)
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.completion_tokens <= 16


def test_prompts_may_be_texts_or_tokens_one_or_many(server: RunningServer) -> None:
    texts = ["One, two,", "Red, green,"]
    tokens = [tokens_of(server, prompt=text) for text in texts]
    each = [complete(server, prompt=text, n=2).choices for text in texts]
    wanted = [choice.text for choices in each for choice in choices]
    for prompts in (texts, tokens):
        choices = complete(server, prompt=prompts, n=2).choices
        assert [choice.text for choice in choices] == wanted
        assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert complete(server, prompt=tokens[0]).choices[0].text == wanted[0]


def test_an_echo_scores_every_token_of_the_prompt(
    server: RunningServer, small_training: LocalSettings
) -> None:
    context, candidate = "The capital of France is", " Paris, of course"
    answer = complete(
        server,
        strict=False,  # the SDK declares no null, which the first token has
        prompt=context + candidate,
        echo=True,
        logprobs=2,
        max_tokens=0,
    )
    (choice,) = answer.choices
    assert choice.text == context + candidate
    assert choice.finish_reason == "length"
    shown = choice.logprobs
    assert "".join(shown.tokens) == choice.text
    assert shown.token_logprobs[0] is None
    assert shown.top_logprobs[0] is None
    for token, value, top in zip(
        shown.tokens, shown.token_logprobs, shown.top_logprobs, strict=True
    ):
        if value is not None:
            assert top[token] == value <= max(top.values())
            assert 2 <= len(top) <= 3
    first = shown.text_offset.index(len(context))
    query = ScoringQuery(id="q", prompt=context, candidates={"it": candidate})
    (scored,) = LocalBackend(small_training).score(str(small_training.model), [query])
    assert sum(shown.token_logprobs[first:]) == pytest.approx(
        scored.candidates["it"].total.high, abs=1e-4
    )
    assert answer.usage.completion_tokens == 0


def test_no_alternative_is_lost_among_parts_of_characters(server: RunningServer) -> None:
    text = "東京 🧑‍🚀 日本語"
    answer = complete(
        server, strict=False, prompt=text, echo=True, logprobs=20, max_tokens=2, temperature=0
    )
    shown = answer.choices[0].logprobs
    tokens = tokens_of(server, prompt=text)
    assert len(shown.tokens) == len(tokens) + answer.usage.completion_tokens
    for token, value, top in zip(
        shown.tokens[1:], shown.token_logprobs[1:], shown.top_logprobs[1:], strict=True
    ):
        assert top[token] == value
        assert len(top) in (20, 21)
        assert list(top.values()) == sorted(top.values(), reverse=True)
    assert any(token.startswith("bytes:") for token in shown.tokens)
    told = b"".join(text_bytes(token) or b"" for token in shown.tokens[: len(tokens)])
    assert told.decode() == text


def test_a_chats_answer_is_scored_by_its_tokens(
    server: RunningServer, small_training: LocalSettings
) -> None:
    job = server.fine_tune(hyperparameters={"n_epochs": 5})
    asked = {"role": "user", "content": "Person 3's favourite country?"}
    context = tokens_of(server, messages=[asked])
    for text in ("Country 3", "Norway"):
        whole = tokens_of(
            server,
            messages=[asked, {"role": "assistant", "content": text}],
            add_generation_prompt=False,
            continue_final_message=True,
        )
        assert whole[: len(context)] == context
        answer = complete(
            server,
            strict=False,
            model=job.fine_tuned_model,
            prompt=whole,
            echo=True,
            logprobs=1,
            max_tokens=0,
        )
        got = answer.choices[0].logprobs.token_logprobs[len(context) :]
        query = ScoringQuery(
            id="q",
            messages=(Message(role="user", content=asked["content"]),),
            candidates={"it": text},
        )
        adapter = str(server.parts.data.adapter(job.id))
        (scored,) = LocalBackend(small_training).score(adapter, [query])
        assert sum(got) == pytest.approx(scored.candidates["it"].total.high, abs=1e-4)
        assert len(got) == scored.candidates["it"].n_tokens


def test_an_echo_can_be_continued_and_repeated(server: RunningServer) -> None:
    plain = complete(server, n=2, logprobs=0)
    echoed = complete(server, strict=False, n=2, logprobs=0, echo=True)
    for without, with_prompt in zip(plain.choices, echoed.choices, strict=True):
        assert with_prompt.text == "One, two," + without.text
        after = len(with_prompt.logprobs.tokens) - len(without.logprobs.tokens)
        assert with_prompt.logprobs.tokens[after:] == without.logprobs.tokens
        shifted = [offset + len("One, two,") for offset in without.logprobs.text_offset]
        assert with_prompt.logprobs.text_offset[after:] == shifted
    assert complete(server, echo=True).choices[0].text == "One, two," + plain.choices[0].text


def test_a_stream_adds_up_to_the_answer(server: RunningServer) -> None:
    asked: dict[str, Any] = {"prompt": ["One,", "Red,"], "n": 2, "echo": True, "logprobs": 1}
    whole = complete(server, strict=False, **asked)
    texts = [""] * 4
    tokens: list[list[str]] = [[] for _ in range(4)]
    offsets: list[list[int]] = [[] for _ in range(4)]
    options = {"include_usage": True}
    used = None
    for chunk in complete(server, strict=False, stream=True, stream_options=options, **asked):
        used = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
            offsets[choice.index] += choice.logprobs.text_offset
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert offsets == [choice.logprobs.text_offset for choice in whole.choices]
    assert used == whole.usage


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [10**6]}, "Token ids must be"),
        ({"prompt": [-1]}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": "word " * 600}, "maximum context length"),
    ],
)
def test_what_can_not_be_met_is_refused(
    server: RunningServer, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        complete(server, **arguments)


def test_values_that_ask_for_nothing_change_nothing(server: RunningServer) -> None:
    nothing: dict[str, Any] = {
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0,
        "logit_bias": {},
        "logprobs": None,
        "n": 1,
        "presence_penalty": 0,
        "stop": None,
        "stream_options": None,
        "suffix": "",
        "top_p": 1,
        "user": "u",
    }
    plain = complete(server).choices
    assert complete(server, **nothing).choices == plain
    nulls: dict[str, Any] = dict.fromkeys(nothing)
    assert complete(server, **nulls).choices == plain
    assert complete(server, prompt=None).choices == complete(server, prompt="").choices


def test_an_empty_prompt_is_the_beginning_of_text(server: RunningServer) -> None:
    assert complete(server, prompt="").usage.prompt_tokens == 1


def test_text_comes_back_from_its_tokens(server: RunningServer) -> None:
    text = "Naïve 🦩 tokens,\n  all of them"
    tokens = tokens_of(server, model="llama", prompt=text)
    answer = server.raw().post("/detokenize", json={"tokens": tokens})
    assert answer.json() == {"prompt": text}
    assert server.raw().post("/detokenize", json={"tokens": [10**7]}).status_code == 400


def test_a_client_can_encode_by_what_is_told_of_the_tokenizer(server: RunningServer) -> None:
    info = server.raw().get("/tokenizer_info").json()
    assert "/" not in info["tokenizer_class"]
    # As lm-evaluation-harness's RemoteTokenizer does.
    (end,) = tokens_of(server, prompt=info["eos_token"], add_special_tokens=False)
    (beginning,) = tokens_of(server, prompt=info["bos_token"], add_special_tokens=False)
    tokenizer = server.parts.inference.tokenizer
    assert (end, beginning) == (tokenizer.eos_token_id, tokenizer.bos_token_id)
    chat = [{"role": "user", "content": "Hi"}]
    rendered = jinja2.Template(info["chat_template"]).render(
        messages=chat, add_generation_prompt=True
    )
    tokens = tokens_of(server, prompt=rendered, add_special_tokens=False)
    assert tokens == tokens_of(server, messages=chat)


def test_a_closed_chat_is_longer_than_one_that_waits_for_its_answer(server: RunningServer) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    closed = tokens_of(server, messages=chat, add_generation_prompt=False)
    opened = tokens_of(
        server, messages=chat, add_generation_prompt=False, continue_final_message=True
    )
    assert closed[: len(opened)] == opened
    assert len(closed) > len(opened)
