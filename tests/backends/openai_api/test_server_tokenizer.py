"""A server as the tokenizer: many texts a request, and what is known is not asked for again."""

import sqlite3
from pathlib import Path

import pytest

from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.connection import Connection
from backends.openai_api.server_tokenizer import ServerTokenizer
from backends.openai_api.settings import OpenAISettings
from tests.jobs import a_job
from tests.misbehaving import Fault, Misbehaving
from tests.server import RunningServer

TEXTS = [f"text {n}, π" for n in range(7)]


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def opened(server: RunningServer) -> ServerTokenizer:
    """As in a process of its own."""
    connection = Connection(OpenAISettings(base_url=server.url))
    return ServerTokenizer(connection, server.parts.models.base)


def watch(server: RunningServer, *faults: Fault) -> Misbehaving:
    seen = Misbehaving(*faults)
    server.wrap(seen)
    return seen


def expected(server: RunningServer) -> list[tuple[int, ...]]:
    tokenizer = server.parts.inference.tokenizer
    return [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in TEXTS]


def test_texts_are_asked_for_together_and_once(server: RunningServer) -> None:
    seen = watch(server)
    tokenizer = opened(server)
    tokenizer.learn([*TEXTS, *TEXTS])
    assert [tokenizer(text) for text in TEXTS] == expected(server)
    assert seen.count("POST", "/tokenize") == 2  # a probe, and all of them


def test_what_was_asked_once_is_known_to_the_next_start(server: RunningServer) -> None:
    opened(server).learn(TEXTS)
    seen = watch(server)
    tokenizer = opened(server)
    assert [tokenizer(text) for text in TEXTS] == expected(server)
    assert seen.count("POST", "/tokenize") == 1  # the probe


def test_another_tokenizer_at_the_same_address_is_asked_anew(server: RunningServer) -> None:
    def other(content: dict[str, list[int]]) -> None:
        content["tokens"] = [1, 2, 3]

    watch(server, Fault("POST", "/tokenize", edit=other))
    opened(server).learn(TEXTS)
    seen = watch(server)
    opened(server).learn(TEXTS)
    assert seen.count("POST", "/tokenize") == 2


def test_a_server_that_takes_one_text_a_request_is_asked_for_each(server: RunningServer) -> None:
    tokenizer = opened(server)
    tokenizer("a")  # the probe
    # As vLLM refuses a list.
    seen = watch(server, Fault("POST", "/tokenize", status=400, message="a valid string"))
    tokenizer.learn(TEXTS)
    assert [tokenizer(text) for text in TEXTS] == expected(server)
    assert seen.count("POST", "/tokenize") == 1 + len(TEXTS)


def test_a_record_that_is_damaged_costs_requests_only(
    server: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "state/kaarel-bet/tokens.sqlite"
    opened(server).learn(TEXTS)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE tokens SET tokens = '[1'")
    tokenizer = opened(server)
    assert [tokenizer(text) for text in TEXTS] == expected(server)
    file.write_bytes(b"not a database")
    tokenizer = opened(server)
    assert [tokenizer(text) for text in TEXTS] == expected(server)


def test_an_estimate_asks_for_all_its_texts_at_once(server: RunningServer, tmp_path: Path) -> None:
    settings = OpenAISettings(model=server.parts.models.base, base_url=server.url)
    job = a_job(tmp_path)
    seen = watch(server)
    tokens = OpenAIBackend(settings).estimate(job).tokens
    assert seen.count("POST", "/tokenize") <= 3  # whether there is one, a probe, and all of them
    seen = watch(server)
    assert OpenAIBackend(settings).estimate(job).tokens == tokens
    assert seen.count("POST", "/tokenize") <= 2
