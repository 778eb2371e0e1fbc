import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from backends.local.sequences import TokenScore
from backends.openai_api.scoring.top import text_bytes
from backends.server.token_texts import TokenTexts


@pytest.fixture(scope="module")
def texts() -> TokenTexts:
    """Of a vocabulary with a token for every byte beside a few of characters."""
    pieces = ["<unk>", "▁", "A", "é", "▁A", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return TokenTexts(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))


def test_every_token_has_a_text_of_its_own(texts: TokenTexts) -> None:
    every = range(300)  # some rows of an output layer are no tokens
    named = {token: texts.text(token) for token in every}
    assert len(set(named.values())) == len(named)
    assert [named[token] for token in range(5)] == ["<unk>", " ", "A", "é", " A"]
    assert named[5 + ord("A")] == r"bytes:\x41"  # the letter has a token
    assert named[5 + ord("B")] == "B"
    assert named[5 + 0xE6] == r"bytes:\xe6"
    likeliest = texts.likeliest(
        2, TokenScore(-1.0, tuple((token, -2.0) for token in every if token != 2))
    )
    assert len(likeliest) == 300


def test_a_text_tells_a_tokens_bytes(texts: TokenTexts) -> None:
    for token in range(5, 261):
        assert text_bytes(texts.text(token)) == texts.raw(token)
