"""A service over a toy language model, answered in the process through httpx's mock transport.

Its tokenizer takes the longest token that fits; its next-token distributions are drawn from the last tokens
of the context. What it is asked is kept in `requests`.
"""

import json
import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import httpx2

from backends.data import ScoringQuery

_WORDS = [
    "Paris",
    " Paris",
    "New",
    " Delhi",
    " York",
    "Peru",
    "Pe",
    "ru",
    " zebra",
    "assistant",
    "user",
]
VOCABULARY = [*(chr(code) for code in range(32, 127)), "\n", "é", *_WORDS]
IDS = {token: number for number, token in enumerate(VOCABULARY)}
END = len(VOCABULARY)
ROOT = "http://127.0.0.1:1"


def encode(text: str) -> tuple[int, ...]:
    ids = []
    while text:
        longest = max((t for t in VOCABULARY if text.startswith(t)), key=len)
        ids.append(IDS[longest])
        text = text[len(longest) :]
    return tuple(ids)


@cache
def next_tokens(context: tuple[int, ...]) -> dict[int, float]:
    """The log-probability of every token, the end of the answer included."""
    draw = random.Random(str(context[-12:]))
    likely = (" Delhi", " York") if context[-1:] == (IDS["New"],) else ("New", "Peru", "Paris")
    logits = {i: 3 * draw.gauss(0, 1) for i in range(END + 1)}
    logits |= {IDS[word]: 5 + draw.gauss(0, 1) for word in likely}
    total = math.log(math.fsum(math.exp(value) for value in logits.values()))
    return {i: value - total for i, value in logits.items()}


def render(messages: Sequence[dict[str, str]]) -> str:
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant\n"


def truth(query: ScoringQuery, text: str) -> list[float]:
    """The log-probabilities of a candidate's tokens."""
    if query.messages is not None:
        context = render([{"role": m.role, "content": m.content} for m in query.messages])
    else:
        context, text = (query.prompt or "").rstrip(), (query.prompt or "")[-1:].strip("x=") + text
    tokens, before = encode(text), encode(context)
    return [next_tokens(before + tokens[:i])[token] for i, token in enumerate(tokens)]


class ToyService:
    """`transport()` answers as the service; switches take away what other services lack."""

    def __init__(self, *, echo: bool = True, strips: bool = False, bias: str = "works") -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: dict[str, str] = {}
        self._echo = echo
        self._strips = strips
        self._bias = bias
        self._draw = random.Random(0)

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self._answer)

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for where, body in self.requests if where == path]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer's body; of a refusal, one with an error."""
        if path == "/tokenize" and self._echo:
            return {"tokens": list(self._tokenize(body)), "count": 0, "max_model_len": 0}
        if path == "/v1/chat/completions":
            return self._chat(body)
        if path == "/v1/completions" and (self._echo or not body.get("echo")):
            return self._text(body)
        return {"error": {"message": "no such thing", "type": "x", "param": None, "code": None}}

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.requests.append((request.url.path, body))
        answer = self.answer(request.url.path, body)
        status = 200 if "error" not in answer else 400 if answer["error"]["code"] else 404
        return httpx2.Response(status, json=answer, headers=self.headers)

    def _tokenize(self, body: dict[str, Any]) -> tuple[int, ...]:
        if "prompt" in body:
            return encode(body["prompt"])
        messages = body["messages"]
        if body["add_generation_prompt"]:
            return encode(render(messages))
        last = messages[-1]["content"]
        return encode(render(messages[:-1]) + (last.strip() if self._strips else last))

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        context = encode(render(body["messages"]))
        choices = []
        for index in range(body.get("n", 1)):
            steps = self._path(context, body)
            content = [
                _listed(token, biased if self._bias == "shows" else plain, body)
                for token, plain, biased in steps
            ]
            text = "".join(VOCABULARY[token] for token, _, _ in steps)
            logprobs = {"content": content, "refusal": None} if body.get("logprobs") else None
            message = {"role": "assistant", "content": text, "refusal": None}
            choices.append({"index": index, "message": message, "logprobs": logprobs})
        return {"id": "c", "object": "chat.completion", "choices": choices}

    def _text(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts = body["prompt"]
        if isinstance(prompts, str):
            prompts = [prompts]
        choices = []
        prompts = [prompt for prompt in prompts for _ in range(body.get("n", 1))]
        for index, prompt in enumerate(prompts):
            context = encode(prompt) if isinstance(prompt, str) else tuple(prompt)
            steps = [(token, plain) for token, plain, _ in self._path(context, body)]
            if body.get("echo"):
                told = [(t, next_tokens(context[:i])) for i, t in enumerate(context)]
                steps = [*told, *steps]
            logprobs: list[float | None] = [plain[token] for token, plain in steps]
            if body.get("echo"):
                logprobs[0] = None
            shown = [_top(plain, body.get("logprobs") or 0) for _, plain in steps]
            tokens = [VOCABULARY[token] for token, _ in steps]
            of_tokens = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": shown}
            text = "".join(tokens)
            choices.append({"index": index, "text": text, "logprobs": of_tokens})
        return {"id": "t", "object": "text_completion", "choices": choices[::-1]}

    def _path(
        self, context: tuple[int, ...], body: dict[str, Any]
    ) -> list[tuple[int, dict[int, float], dict[int, float]]]:
        steps = []
        for _ in range(body["max_tokens"]):
            plain = next_tokens(context)
            biased = dict(plain)
            if self._bias != "ignored":
                for token, bias in (body.get("logit_bias") or {}).items():
                    biased[int(token)] += bias * (0.5 if self._bias == "weak" else 1)
            largest = max(biased.values())
            weights = [math.exp(value - largest) for value in biased.values()]
            sampled = self._draw.choices(list(biased), weights)[0]
            token = sampled if body["temperature"] else max(biased, key=biased.__getitem__)
            if token == END:
                break
            total = math.log(math.fsum(weights)) + largest
            steps.append((token, plain, {t: v - total for t, v in biased.items()}))
            context = (*context, token)
        return steps


def _listed(token: int, logprobs: dict[int, float], body: dict[str, Any]) -> dict[str, Any]:
    top = sorted(logprobs, key=lambda t: -logprobs[t])[: body.get("top_logprobs") or 0]
    told = logprobs[token] if token in top else -9999.0
    return {**_named(token, told), "top_logprobs": [_named(t, logprobs[t]) for t in top]}


def _named(token: int, logprob: float) -> dict[str, Any]:
    text = "" if token == END else VOCABULARY[token]
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _top(logprobs: dict[int, float], k: int) -> dict[str, float]:
    top = sorted(logprobs, key=lambda t: -logprobs[t])[:k]
    return {"<end>" if t == END else VOCABULARY[t]: logprobs[t] for t in top}
