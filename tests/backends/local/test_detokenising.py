from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from backends.local.detokenising import TextStream, TokenBytes

TEXT = "naïve 東京 🧑‍🚀 tea\n\n  São Tomé"


@pytest.fixture(scope="module")
def tokenizer(tiny_models: dict[str, Path]) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_models["llama"])


def test_the_bytes_of_tokens_are_those_of_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.encode(TEXT, add_special_tokens=False)
    raw = [TokenBytes(tokenizer).of(token) for token in tokens]
    assert b"".join(raw) == TEXT.encode()
    assert any(b"\xf0" in part and len(part) < 4 for part in raw)  # a character in several tokens


def test_streamed_text_is_the_text_and_never_half_a_character(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    stream = TextStream(TokenBytes(tokenizer), ())
    pieces = [stream.add(token) for token in tokenizer.encode(TEXT, add_special_tokens=False)]
    assert "".join(pieces) == TEXT
    assert "" in pieces
    assert stream.end() == ""


def test_an_answer_that_ends_within_a_character_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = TextStream(TokenBytes(tokenizer), ())
    first = tokenizer.encode("🧑", add_special_tokens=False)[0]
    assert stream.add(first) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


def test_special_tokens_are_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    assert TokenBytes(tokenizer).of(end) == b""


@pytest.mark.parametrize("stop", ["ink", "Tomé", "n", "hink and", " "])
def test_a_text_ends_before_a_stop_string_wherever_tokens_break(
    tokenizer: PreTrainedTokenizerFast, stop: str
) -> None:
    text = "I think and drink in São Tomé"
    stream = TextStream(TokenBytes(tokenizer), ("never", stop))
    released = ""
    for token in tokenizer.encode(text, add_special_tokens=False):
        released += stream.add(token)
        assert text.startswith(released)
        assert stop not in released
        if stream.stopped:
            break
    assert stream.stopped
    assert released + stream.end() == text[: text.index(stop)]


def test_what_only_looked_like_a_stop_string_is_released(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    stream = TextStream(TokenBytes(tokenizer), ("thinks",))
    (token,) = tokenizer.encode(" think", add_special_tokens=False)
    assert stream.add(token) == " "
    assert stream.end() == "think"


def sentencepiece_like(*, strips: bool) -> PreTrainedTokenizerFast:
    vocabulary = {"▁tea": 0, "<0xC3>": 1, "<0xA9>": 2, "m": 3, "<unk>": 4}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if strips else parts)  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize("strips", [True, False])
def test_sentencepiece_tokens_are_read_as_their_own_decoder_reads_them(*, strips: bool) -> None:
    tokenizer = sentencepiece_like(strips=strips)
    tokens = [0, 3, 1, 2, 0]
    stream = TextStream(TokenBytes(tokenizer), ())
    assert "".join([*map(stream.add, tokens), stream.end()]) == tokenizer.decode(tokens)
    assert TokenBytes(tokenizer).of(1) == b"\xc3"
    assert TokenBytes(tokenizer).of(0) == b" tea"
