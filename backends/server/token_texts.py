"""Tokens and their log-probabilities as the wire shows them."""

from collections.abc import Sequence

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.detokenising import TokenBytes


class TokenTexts:
    """What a token is called, and its bytes, which identify it where two are called the same."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._bytes = TokenBytes(tokenizer)

    def text(self, token: int) -> str:
        """The token's text; a special token's is its name, bytes that are no character are U+FFFD."""
        content = self._bytes.of(token)
        if content:
            return content.decode("utf-8", "replace")
        name = self._tokenizer.convert_ids_to_tokens(token)
        return name if isinstance(name, str) else ""

    def content(self, token: int) -> bytes:
        """The token's bytes; a special token's are those of its name."""
        return self._bytes.of(token) or self.text(token).encode()

    def chat(
        self, token: int, log_probability: float, top: Sequence[tuple[int, float]]
    ) -> ChatCompletionTokenLogprob:
        """A token of a chat's answer."""
        return ChatCompletionTokenLogprob(
            token=self.text(token),
            bytes=list(self.content(token)),
            logprob=log_probability,
            top_logprobs=[
                TopLogprob(token=self.text(t), bytes=list(self.content(t)), logprob=value)
                for t, value in top
            ],
        )

    def likeliest(self, scores: Sequence[tuple[int, float]]) -> dict[str, float]:
        """The likeliest tokens of a completion by their text; of two with one text, the likelier."""
        ordered = sorted(scores, key=lambda score: score[1])
        by_text = {self.text(token): value for token, value in ordered}
        return dict(sorted(by_text.items(), key=lambda item: -item[1]))
