"""Tokens and their log-probabilities as the wire shows them."""

import codecs
from collections.abc import Iterable

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.detokenising import TokenBytes
from backends.local.sequences import TokenScore


class TokenTexts:
    """What a token is called, and its bytes, which identify it where two are called the same."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._bytes = TokenBytes(tokenizer)

    def text(self, token: int) -> str:
        r"""The token's text, which no other token has; a special token's is its name.

        What is no whole character is written as the hosted service does: `bytes:\xe6\x97`.
        """
        content = self._bytes.of(token)
        if not content:
            name = self._tokenizer.convert_ids_to_tokens(token)
            return name if name and isinstance(name, str) else f"<token {token}>"
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return _spelled(content)
        return _spelled(content) if self._is_second(token, text) else text

    def _is_second(self, token: int, text: str) -> bool:
        """Whether the token is a single byte's, and the byte's character has one of its own as well."""
        if not self._bytes.is_fallback(token):
            return False
        first = self._tokenizer.convert_tokens_to_ids(text.replace(" ", "▁"))
        return isinstance(first, int) and self._bytes.of(first) == text.encode()

    def raw(self, token: int) -> bytes:
        """What the token adds to a text; of a special token, nothing."""
        return self._bytes.of(token)

    def content(self, token: int) -> bytes:
        """The token's bytes; a special token's are those of its name."""
        return self._bytes.of(token) or self.text(token).encode()

    def chat(self, token: int, score: TokenScore) -> ChatCompletionTokenLogprob:
        """A token of a chat's answer."""
        return ChatCompletionTokenLogprob(
            token=self.text(token),
            bytes=list(self.content(token)),
            logprob=score.log_probability,
            top_logprobs=[
                TopLogprob(token=self.text(t), bytes=list(self.content(t)), logprob=value)
                for t, value in score.top
            ],
        )

    def likeliest(self, token: int, score: TokenScore) -> dict[str, float]:
        """The likeliest tokens at a place of a completion, and the one that is there, by their text."""
        by_token = {token: score.log_probability} | dict(score.top)
        ordered = sorted(by_token.items(), key=lambda item: item[1], reverse=True)
        return {self.text(token): value for token, value in ordered}


def _spelled(content: bytes) -> str:
    # Printable letters stand for themselves, unless there is nothing else.
    plain = set() if content.isascii() else {*range(32, 127)} - {ord("\\")}
    shown = (chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in content)
    return "bytes:" + "".join(shown)


class CompletionLogprobs:
    """A completion's log-probabilities as its text grows, with each token's place in the text."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def of(self, tokens: Iterable[tuple[int, TokenScore | None]]) -> Logprobs:
        """Those of the tokens that come next; one without a score has null."""
        named: list[str] = []
        offsets: list[int] = []
        values: list[float | None] = []
        top: list[dict[str, float] | None] = []
        for token, score in tokens:
            named.append(self._texts.text(token))
            offsets.append(self._length)
            values.append(None if score is None else score.log_probability)
            top.append(None if score is None else self._texts.likeliest(token, score))
            self._length += len(self._decoder.decode(self._texts.raw(token)))
        # Not validated: the SDK declares no null here.
        return Logprobs.model_construct(
            tokens=named, token_logprobs=values, top_logprobs=top, text_offset=offsets
        )
