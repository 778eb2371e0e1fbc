"""Answers held to a grammar: of each next token, which the grammar allows (llguidance).

Source: https://github.com/guidance-ai/llguidance; its docs/json_schema.md says what of JSON Schema it has.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.errors import UnsupportedError

LAYOUT: Any = {"whitespace_pattern": r"[ \t\n]{0,20}"}
"""Between the parts of a JSON text. Without a bound a model can go on with spaces for ever."""


class Constraint:
    """A grammar that answers are to fit, compiled for one vocabulary."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str) -> None:
        """Raises UnsupportedError with the library's reason for a grammar that it can't follow."""
        self._beginning = LLMatcher(tokenizer, grammar, log_level=0)
        if self._beginning.is_error():
            raise UnsupportedError(_in_one_line(self._beginning.get_error()))

    def follow(self) -> "Followed":
        """For one more answer, from its beginning."""
        return Followed(self._beginning.deep_copy())


class Followed:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def take(self, token: int) -> None:
        """Goes on by a token, which must be one of those allowed."""
        self._matcher.consume_token(token)

    @property
    def is_complete(self) -> bool:
        """Whether nothing more may follow."""
        return self._matcher.is_stopped() and not self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether the grammar became too complex to be followed any further."""
        return self._matcher.is_error()

    def allowed(self, n_tokens: int) -> torch.Tensor:
        """Which of the vocabulary's tokens may come next: (n_tokens,), bool."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(packed, count=n_tokens, bitorder="little")
        return torch.from_numpy(bits.astype(bool))


class Grammars:
    """Makes constraints for one tokenizer and a model with so many rows of logits."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, n_tokens: int, ends: Collection[int]
    ) -> None:
        """Raises UnsupportedError for a tokenizer that the library can't read."""
        size = max(n_tokens, len(tokenizer))
        self._special = frozenset(tokenizer.all_special_tokens)
        try:
            self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, size, sorted(ends) or None)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise UnsupportedError(
                f"the model's tokenizer can't be held to a grammar: {_in_one_line(str(error))}"
            ) from error

    def json(self, schema: Mapping[str, Any]) -> Constraint:
        """JSON that is valid by a schema.

        Raises:
            UnsupportedError: what the schema says is not supported, or makes no sense.
        """
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=LAYOUT)
        return Constraint(self._tokenizer, grammar)

    def calls(
        self,
        choices: Iterable[tuple[str, Mapping[str, Any], str]],
        *,
        around: tuple[str, str],
        several: bool,
        in_text: bool,
    ) -> Constraint:
        """One of the choices, or several one after the other: text, JSON by a schema, text.

        `around` is what each begins and ends with. With `in_text` there may be none, and text around them:
        any but for what they begin with. Raises as `json`.
        """
        rules = [
            f"{json.dumps(before)} %json {json.dumps(schema)} {json.dumps(after)}"
            for before, schema, after in choices
        ]
        names = [f"choice{number}" for number in range(len(rules))]
        opening, closing = (self._literal(text) for text in around)
        lines = [
            f'rest: "\\n" ({" | ".join(names)}) "\\n" {closing}',
            *(f"{name}: {rule}" for name, rule in zip(names, rules, strict=True)),
        ]
        if not in_text:
            again = f' ("\\n" {opening} rest)*' if several else ""
            lines.append(f"start: {opening} rest{again}")
        elif opening in self._special:  # which no pattern of characters fits
            lines += [
                f"start: TEXT ({opening} rest TEXT){'*' if several else '?'}",
                r"TEXT: /(.|\n)*/",
            ]
        else:
            tag = re.escape(around[0])
            lines += [
                f"start: (begun rest){'*' if several else '?'} TEXT",
                rf"begun[lazy]: /(.|\n)*{tag}/",
                rf"TEXT: /(.|\n)*/ & ~/(.|\n)*{tag}(.|\n)*/",
            ]
        return Constraint(self._tokenizer, LLMatcher.grammar_from_lark("\n".join(lines)))

    def _literal(self, text: str) -> str:
        """A text in a grammar; a special token stands for itself there."""
        return text if text in self._special else json.dumps(text)


def masked(logits: torch.Tensor, following: Sequence[Followed | None]) -> torch.Tensor:
    """The logits (rows, vocabulary) with those that a row's grammar does not allow at minus infinity."""
    held = [(row, place) for row, place in enumerate(following) if place is not None]
    if not held:
        return logits
    logits = logits.clone()
    for row, place in held:
        allowed = place.allowed(logits.shape[-1]).to(logits.device)
        logits[row].masked_fill_(~allowed, float("-inf"))
    return logits


def _in_one_line(reason: str) -> str:
    return " ".join(reason.split())
