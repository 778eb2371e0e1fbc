"""Chats and texts to tokens, with the boundary between context and continuation checked.

Scores and losses are sums over the tokens after a boundary. They are only right when the tokens of
"context" are the first tokens of "context + continuation", so every boundary is verified.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.data import (
    GenerationQuery,
    Message,
    Messages,
    PreferenceExample,
    Query,
    ScoringQuery,
    SearchQuery,
    TrainingExample,
)
from backends.errors import DataError, UnsupportedError
from backends.interface import LossOn
from backends.local.sequences import Pair, TokenSequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizedQuery:
    """A context and the tokens of each candidate that continues it (label -> tokens).

    Of context and candidate together the model is shown the last `longest` tokens, None for all.
    """

    id: str
    context: list[int]
    candidates: dict[str, list[int]]
    longest: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether of any candidate's context the beginning is not shown."""
        length = len(self.context) + max(len(tokens) for tokens in self.candidates.values())
        return self.longest is not None and length > self.longest


class Encoder:
    """Encodes for one tokenizer, refusing whatever exceeds the model's context length.

    Only text prompts of scoring queries may exceed it: lm-evaluation-harness cuts off their beginning.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context_length: int | None) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._has_said_cut = False

    @property
    def context_length(self) -> int | None:
        """How many tokens the model can attend to, None where nothing limits it."""
        return self._context_length

    def chat(
        self, messages: Messages, *, for_answer: bool = True, continuation: str = ""
    ) -> list[int]:
        """A chat's tokens, open for the assistant's answer or closed.

        `continuation` is what the answer begins with, verbatim: its tokens are those that follow the
        context in `query`.
        """
        text = self._render_chat(messages, for_answer=for_answer) + continuation
        return self._tokens(text, chat=True)

    def turns(
        self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """The tokens of turns in the chat template's own form, with functions that the model may call."""
        return self._tokens(self._rendered(turns, for_answer=True, tools=tools), chat=True)

    def text(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """A text's tokens, with those that the tokenizer puts around a text or without."""
        return self._tokens(text, chat=not special_tokens)

    def render(self, query: Query) -> str:
        """The context as the model sees it, special tokens included."""
        if query.messages is not None:
            return self._render_chat(query.messages, for_answer=True) + (query.prefill or "")
        return query.prompt or ""

    def prompt(self, query: GenerationQuery | SearchQuery) -> list[int]:
        """The tokens to be continued. Raises DataError where no room is left for the answer."""
        try:
            if query.messages is not None:
                tokens, _ = self._chat_context(query)
            else:
                tokens = self.text(query.prompt or "") or self.beginning_of_text()
            self.check_length(len(tokens) + query.max_tokens)
        except DataError as error:
            raise DataError(f"query '{query.id}' (max_tokens included): {error}") from error
        return tokens

    def _chat_context(self, query: Query) -> tuple[list[int], str]:
        """The tokens of a chat and of the answer's prefill, and both as text."""
        text = self.render(query)
        tokens = self._tokens(text, chat=True)
        if query.prefill is not None:
            bare = text.removesuffix(query.prefill)
            self._after_boundary(tokens, self._tokens(bare, chat=True), bare)
        return tokens, text

    def example(self, example: TrainingExample, loss_on: LossOn) -> TokenSequence:
        """A training example. Raises DataError if too long or if a boundary is not between tokens."""
        if example.messages is not None:
            tokens, learned = self._chat_example(example.messages)
        else:
            context, whole, stem = self._encode_pair(example.prompt or "", example.completion or "")
            completion = self._after_boundary(whole, context, stem)
            tokens = context + completion + self._end_of_text()
            learned = list(range(len(context), len(tokens)))
        if loss_on == "prompt_and_completion":
            learned = list(range(1, len(tokens)))  # nothing precedes token 0 to predict it from
        self.check_length(len(tokens))
        return TokenSequence(tokens, learned)

    def pair(self, example: PreferenceExample) -> Pair:
        """A preference. Raises DataError as `example`, or if both answers have the same tokens."""
        preferred, other = example.each_learned
        chosen, rejected = self.example(preferred, "completion"), self.example(other, "completion")
        if chosen == rejected:
            raise DataError("both answers have the same tokens: nothing is preferred")
        return Pair(chosen, rejected)

    def query(self, query: ScoringQuery) -> TokenizedQuery:
        """A scoring query; a text prompt's by lm-evaluation-harness's rule, so that scores are equal.

        That rule takes a candidate's tokens to be those of prompt and candidate together from the
        prompt's length on, whether or not the prompt's own come first, and keeps the last tokens of
        what is too long (lm_eval/models/huggingface.py, `_loglikelihood_tokens`).

        Raises:
            DataError: a chat or a candidate that is too long, an empty candidate, two candidates with
                the same tokens, or in a chat a boundary that is not between tokens.
        """
        context: list[int] = []
        candidates: dict[str, list[int]] = {}
        for label, text in query.candidates.items():
            try:
                context, candidates[label] = self._continuation(query, text)
                kept = (
                    candidates[label] if query.messages is None else [*context, *candidates[label]]
                )
                self.check_length(len(kept))
            except DataError as error:
                raise DataError(f"query '{query.id}', candidate '{label}': {error}") from error
        for one, other in itertools.combinations(candidates, 2):
            if candidates[one] == candidates[other]:
                raise DataError(
                    f"query '{query.id}': candidates '{one}' and '{other}' have the same tokens; "
                    "their scores could not be told apart"
                )
        longest = None
        if query.messages is None and self._context_length is not None:
            longest = self._context_length + 1  # the last token is predicted, not shown
        tokenized = TokenizedQuery(query.id, context, candidates, longest)
        self._say_if_cut(tokenized)
        return tokenized

    def _say_if_cut(self, query: TokenizedQuery) -> None:
        """Says it of the first query that is cut off."""
        if query.is_cut and not self._has_said_cut:
            self._has_said_cut = True
            _log.warning(
                "query '%s': longer than the model's context of %d tokens; of such text prompts the "
                "beginning is cut off, as lm-evaluation-harness does",
                query.id,
                self._context_length,
            )

    def answer_tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text at the start of an assistant's answer."""
        if self._tokenizer.chat_template is None:
            return tuple(self._tokenizer.encode(text, add_special_tokens=False))
        turn = (Message(role="user", content="?"),)
        query = ScoringQuery(id="answer", messages=turn, candidates={"answer": text})
        return tuple(self._continuation(query, text)[1])

    def _continuation(self, query: ScoringQuery, text: str) -> tuple[list[int], list[int]]:
        """The tokens of the context and of a text that continues it."""
        if not text:
            raise DataError("it is empty")
        if query.messages is None:
            context, whole, _ = self._encode_pair(query.prompt or "", text)
            if len(whole) <= len(context):
                raise DataError(
                    "with the prompt's end it becomes no tokens of its own; move the space or choose "
                    "another wording"
                )
            return context, whole[len(context) :]
        context, rendered = self._chat_context(query)
        whole = self._tokens(rendered + text, chat=True)
        return context, self._after_boundary(whole, context, rendered)

    def _chat_example(self, messages: Messages) -> tuple[list[int], list[int]]:
        """All tokens up to the end of the last learned turn, and the positions of the learned ones."""
        tokens: list[int] = []
        learned: list[int] = []
        whole_text = self._render_chat(messages, for_answer=False)
        for position, message in enumerate(messages):
            if message.role != "assistant" or message.weight == 0:
                continue
            before_text = self._render_chat(messages[:position], for_answer=True)
            # What a template puts after the end-of-turn token is layout, nothing to learn.
            upto_text = self._render_chat(messages[: position + 1], for_answer=False).rstrip()
            if not whole_text.startswith(upto_text) or not upto_text.startswith(before_text):
                raise DataError(
                    f"messages.{position}: the chat template rewrites earlier turns, so the "
                    "answer's place can't be told"
                )
            if not upto_text[len(before_text) :].startswith(message.content.strip()):
                raise DataError(
                    f"messages.{position}: the chat template writes something before the answer, or "
                    "changes it, so what is learned is not what would be scored; use text prompts"
                )
            before = self._tokens(before_text, chat=True)
            tokens = self._tokens(upto_text, chat=True)
            self._after_boundary(tokens, before, before_text)
            learned += range(len(before), len(tokens))
        return tokens, learned

    def _encode_pair(self, prompt: str, completion: str) -> tuple[list[int], list[int], str]:
        """Tokens of a prompt and of prompt and completion together, and the prompt as it was encoded.

        lm-evaluation-harness's rule (lm_eval/api/model.py, TemplateLM._encode_pair): whitespace at
        the end of the prompt moves to the completion; an empty prompt is the beginning-of-text
        token, else the end-of-text token.
        """
        stem = prompt.rstrip()
        completion = prompt[len(stem) :] + completion
        if not stem:
            empty = self.beginning_of_text()
            return empty, empty + self._tokens(completion, chat=True), stem
        return self._tokens(stem, chat=False), self._tokens(stem + completion, chat=False), stem

    def _after_boundary(self, whole: list[int], context: list[int], text: str) -> list[int]:
        if whole[: len(context)] != context or len(whole) == len(context):
            raise DataError(
                f"the boundary after {text[-20:]!r} is not one between tokens: the tokenizer joins "
                "what stands before and after it; move the space or choose another wording"
            )
        return whole[len(context) :]

    def _render_chat(self, messages: Sequence[Message], *, for_answer: bool) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        return self._rendered(chat, for_answer=for_answer)

    def _rendered(
        self,
        chat: Sequence[Mapping[str, Any]],
        *,
        for_answer: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        if self._tokenizer.chat_template is None:
            raise UnsupportedError(
                "the model has no chat template; use a chat model, or text prompts"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(turn) for turn in chat],
                tools=[dict(tool) for tool in tools] or None,  # pyright: ignore[reportArgumentType]
                tokenize=False,
                add_generation_prompt=for_answer,
                # Templates of reasoning models then open the answer as they write learned ones.
                enable_thinking=False,
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise DataError(f"the model's chat template refuses the messages: {error}") from error
        return str(text)

    def _tokens(self, text: str, *, chat: bool) -> list[int]:
        # Chat templates write the special tokens themselves, and so do some texts (lm-evaluation-harness,
        # `has_bos_prefix`).
        beginning = self._tokenizer.bos_token
        has_beginning = isinstance(beginning, str) and text.startswith(beginning)
        return self._tokenizer.encode(text, add_special_tokens=not chat and not has_beginning)

    def beginning_of_text(self) -> list[int]:
        """What stands for an empty text, so that there is something to continue."""
        token = self._tokenizer.bos_token_id
        return [token] if isinstance(token, int) else self._end_of_text()

    def _end_of_text(self) -> list[int]:
        token = self._tokenizer.eos_token_id
        if not isinstance(token, int):
            raise UnsupportedError("the model's tokenizer has no end-of-text token")
        return [token]

    def check_length(self, length: int) -> None:
        """Raises DataError for more tokens than the model's context holds."""
        if self._context_length is not None and length > self._context_length:
            raise DataError(
                f"{length} tokens are longer than the model's context of {self._context_length}"
            )
