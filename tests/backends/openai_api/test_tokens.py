"""Which tokenizer is taken, and what chats are billed as."""

from pathlib import Path

import pytest
import tiktoken

from backends.data import Message, TrainingExample
from backends.errors import ModelError, SettingsError
from backends.openai_api import tokens
from backends.openai_api.connection import Connection
from backends.openai_api.settings import OpenAISettings
from backends.openai_api.tokens import choose_tokenizer, example_tokens, message_tokens
from tests.misbehaving import Fault, Misbehaving
from tests.server import RunningServer, StartServer


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, server: RunningServer) -> Connection:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return Connection(OpenAISettings(base_url=server.url))


@pytest.fixture
def openais_own(monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return Connection(OpenAISettings())


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of tiktoken's tables are asked for; they come by the network, so one letter is a token."""
    asked: list[str] = []

    def table(name: str) -> tiktoken.Encoding:
        asked.append(name)
        ranks = {bytes([byte]): byte for byte in range(256)}
        return tiktoken.Encoding(name, pat_str=".", mergeable_ranks=ranks, special_tokens={})

    monkeypatch.setattr(tiktoken, "get_encoding", table)
    return asked


@pytest.mark.parametrize(
    ("name", "model", "table"),
    [
        ("auto", "gpt-4.1-mini-2025-04-14", "o200k_base"),
        ("auto", "ft:gpt-4.1-mini-2025-04-14:org::abc", "o200k_base"),
        ("auto", "ft:gpt-4o-2024-08-06:org::abc", "o200k_base"),
        ("cl100k_base", "whatever", "cl100k_base"),
    ],
)
def test_a_known_models_table_is_taken(
    openais_own: Connection, tables: list[str], name: str, model: str, table: str
) -> None:
    assert choose_tokenizer(openais_own, name, model)("ab") == (97, 98)
    assert tables == [table]


def test_a_table_that_cannot_be_had_says_how_to_get_it(
    openais_own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(_: str) -> tiktoken.Encoding:
        raise OSError

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    encode = choose_tokenizer(openais_own, "auto", "gpt-4.1")
    with pytest.raises(ModelError, match=r"o200k_base can't be downloaded.*TIKTOKEN_CACHE_DIR"):
        encode("a")


def test_else_the_server_is_asked(connection: Connection, server: RunningServer) -> None:
    encode = choose_tokenizer(connection, "auto", server.parts.models.base)
    tokenizer = server.parts.inference.tokenizer
    text = "Guinea-Bissau, π"
    assert list(encode(text)) == tokenizer.encode(text, add_special_tokens=False)


def test_a_server_is_asked_for_its_model_by_a_name_of_openais(
    start_server: StartServer, tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = start_server(aliases={"gpt-4.1-2025-04-14": "self"})
    connection = Connection(OpenAISettings(base_url=server.url))
    encode = choose_tokenizer(connection, "auto", "gpt-4.1-2025-04-14")
    tokenizer = server.parts.inference.tokenizer
    assert list(encode("Guinea-Bissau")) == tokenizer.encode("Guinea-Bissau")
    assert not tables
    # One that can't say it has OpenAI's model, as far as can be told.
    server.wrap(Misbehaving(Fault("POST", "/tokenize", status=404)))
    assert choose_tokenizer(connection, "auto", "gpt-4.1-2025-04-14")("ab") == (97, 98)
    assert tables == ["o200k_base"]


def test_a_tokenizer_in_a_directory_is_taken(
    connection: Connection, tiny_model: Path, server: RunningServer
) -> None:
    by_directory = choose_tokenizer(connection, str(tiny_model), "m")
    by_server = choose_tokenizer(connection, "auto", server.parts.models.base)
    assert by_directory("the capital of Peru") == by_server("the capital of Peru")


def test_a_model_that_nobody_can_cut_is_refused(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, server: RunningServer
) -> None:
    async def cannot(*_: object) -> bool:
        return False

    monkeypatch.setattr(tokens, "can_tokenize", cannot)
    with pytest.raises(SettingsError, match=r"openai.tokenizer: .*o200k_base"):
        choose_tokenizer(connection, "auto", server.parts.models.base)
    with pytest.raises(ModelError, match=r"openai\.model: .*some-model"):
        choose_tokenizer(connection, "auto", "some-model")


def test_a_chat_is_billed_by_content_role_and_format() -> None:
    def encode(text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    turn = Message(role="user", content="abc")
    answer = Message(role="assistant", content="de")
    assert message_tokens(encode, (turn,)) == 3 + 4 + 3
    assert example_tokens(encode, TrainingExample(messages=(turn, answer))) == 10 + 2 + 9 + 3
    assert example_tokens(encode, TrainingExample(prompt="ab", completion="c")) == 3
