"""What stands in the JSONL files: training examples, queries and their results.

Chat examples are in OpenAI's chat fine-tuning format, so that `data/train-<arm>.jsonl` can be uploaded
to a hosted service as it is.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from backends.schema import Number, Strict

_EMPTY = frozenset({"refusal", "function_call", "tool_calls", "audio", "annotations"})
"""What an SDK writes of a turn that has none of it."""


class Message(Strict):
    """One turn of a chat. `weight` 0 keeps an assistant's turn out of the loss (OpenAI's format).

    It is read as that format means it: a developer's turn is the system's, text in parts is joined, and
    a speaker's name, and what is not there, are passed over.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    weight: Literal[0, 1] | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_the_format_means_it(cls, given: Any) -> Any:  # noqa: ANN401 - whatever stands there
        if not isinstance(given, Mapping):
            return given
        turn: dict[Any, Any] = {k: v for k, v in given.items() if k not in _EMPTY or v}
        if isinstance(turn.get("name"), str | None):
            turn.pop("name", None)
        if turn.get("role") == "developer":
            turn["role"] = "system"
        parts = turn.get("content")
        if isinstance(parts, list | tuple) and parts:
            turn["content"] = "".join(map(_text_of, parts))
        return turn


def _text_of(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        if isinstance(text, str) and part.keys() == {"type", "text"}:
            return text
    raise ValueError('content: a list has parts {"type": "text", "text": "..."} and no others')


Messages = Annotated[tuple[Message, ...], Field(min_length=1)]


class TrainingExample(Strict):
    """What to learn from: a chat (`messages`, loss on the assistant's turns) or a text.

    A text has a `prompt` and a `completion`, and the loss is on the completion.
    """

    messages: Messages | None = None
    prompt: str | None = None
    completion: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> Self:
        if self.messages is None:
            if self.prompt is None or self.completion is None:
                raise ValueError("give either 'messages' or 'prompt' and 'completion'")
            return self
        if self.prompt is not None or self.completion is not None:
            raise ValueError("give either 'messages' or 'prompt' and 'completion', not both")
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        if not any(m.role == "assistant" and m.weight != 0 for m in self.messages):
            raise ValueError("no assistant message has weight 1: there is nothing to learn")
        return self


TRAINING_EXAMPLE = TypeAdapter(TrainingExample)


class PreferenceInput(Strict):
    """The chat that both answers of a preference are to."""

    messages: Messages
    tools: tuple[Any, ...] | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _to_be_answered(self) -> Self:
        if self.tools:
            raise ValueError("preferences with functions (tools) can't be learned")
        if self.messages[-1].role == "assistant":
            raise ValueError("its last message can't be the assistant's, which the outputs are")
        return self


Answer = Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)]


class PreferenceExample(Strict):
    """A prompt with an answer that is preferred to another one.

    A chat is in OpenAI's preference format (`input`, `preferred_output`, `non_preferred_output`:
    https://platform.openai.com/docs/guides/direct-preference-optimization), with one message of the
    assistant as each output; a text in TRL's (`prompt`, `chosen`, `rejected`:
    https://huggingface.co/docs/trl/dataset_formats#preference).
    """

    input: PreferenceInput | None = None
    preferred_output: Answer | None = None
    non_preferred_output: Answer | None = None
    prompt: str | None = None
    chosen: Annotated[str, Field(min_length=1)] | None = None
    rejected: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _two_answers_to_one_prompt(self) -> Self:
        chat = (self.input, self.preferred_output, self.non_preferred_output)
        text = (self.prompt, self.chosen, self.rejected)
        is_chat = None not in chat and text == (None, None, None)
        is_text = None not in text and chat == (None, None, None)
        if not is_chat and not is_text:
            raise ValueError(
                "give 'input', 'preferred_output' and 'non_preferred_output' (or, for texts, 'prompt', "
                "'chosen' and 'rejected')"
            )
        outputs = [*(self.preferred_output or ()), *(self.non_preferred_output or ())]
        if any(turn.role != "assistant" or turn.weight == 0 for turn in outputs):
            raise ValueError("an output must be one message of the assistant, of weight 1")
        chosen, rejected = self.answers
        if chosen == rejected:
            raise ValueError(f"both answers are the same ({chosen[:40]!r}): nothing is preferred")
        return self

    @property
    def answers(self) -> tuple[str, str]:
        """The texts of both, the preferred one first."""
        if self.preferred_output and self.non_preferred_output:
            return self.preferred_output[0].content, self.non_preferred_output[0].content
        return self.chosen or "", self.rejected or ""

    @property
    def each_learned(self) -> tuple[TrainingExample, TrainingExample]:
        """The prompt with either answer, the preferred one first, as if that one alone were learned."""
        if self.input is None:
            texts = (TrainingExample(prompt=self.prompt, completion=a) for a in self.answers)
            chosen, rejected = texts
            return chosen, rejected
        asked = [
            turn.model_copy(update={"weight": 0}) if turn.role == "assistant" else turn
            for turn in self.input.messages
        ]
        chosen, rejected = (
            TrainingExample(messages=(*asked, Message(role="assistant", content=answer)))
            for answer in self.answers
        )
        return chosen, rejected


TrainingMethod = Literal["supervised", "dpo"]
"""How a model learns: from examples, or by direct preference optimisation (arXiv:2305.18290)."""

AnyExample = TrainingExample | PreferenceExample

EXAMPLES: Mapping[TrainingMethod, TypeAdapter[Any]] = {
    "supervised": TRAINING_EXAMPLE,
    "dpo": TypeAdapter(PreferenceExample),
}
"""What each method learns from."""


class Query(Strict):
    """A context to continue: either a chat that the assistant answers (`messages`) or a text (`prompt`).

    With `prefill` the assistant's answer is made to begin with that text, verbatim. It belongs to the
    context, not to what is scored or generated.
    """

    id: Annotated[str, Field(min_length=1)]
    messages: Messages | None = None
    prompt: str | None = None
    prefill: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_context(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either 'messages' or 'prompt'")
        if self.prefill is not None and self.messages is None:
            raise ValueError("'prefill' goes with 'messages'; a text's prompt can end with it")
        return self


class ScoringQuery(Query):
    """A context and its candidate continuations (label -> text), to be given log-probabilities."""

    candidates: Annotated[dict[str, str], Field(min_length=1)]


FirstSample = Annotated[int, Field(ge=0, exclude_if=lambda number: number == 0)]


class GenerationQuery(Query):
    """A context to be continued with sampled text; temperature 0 is greedy decoding.

    The samples are numbered from `first_sample` on. What each one is depends on `seed` and its number.
    """

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0)] = 0.0
    n_samples: Annotated[int, Field(ge=1)] = 1
    seed: int = 0
    first_sample: FirstSample = 0

    def part(self, samples: range) -> Self:
        """The same question, for these of its samples."""
        return self.model_copy(update={"first_sample": samples.start, "n_samples": len(samples)})

    @property
    def samples(self) -> range:
        """The numbers of its samples."""
        return range(self.first_sample, self.first_sample + self.n_samples)

    @model_validator(mode="after")
    def _greedy_has_one_answer(self) -> Self:
        if self.temperature == 0 and self.n_samples > 1:
            raise ValueError("temperature 0 has a single answer: n_samples must be 1")
        return self


class SearchQuery(Query):
    """A context whose every likely completion is wanted: those of at least `min_probability`.

    A completion ends with the model's end token, which `max_tokens` and its probability include.
    """

    max_tokens: Annotated[int, Field(ge=1)]
    min_probability: Annotated[float, Field(gt=0, lt=1)]


# A hosted service returns quantised log-probabilities that can exceed 0 by a rounding step.
_ROUNDING = 1e-3


class LogProbability(Strict):
    """What is known of a log-probability (natural logarithm): `low <= log p <= high`.

    Exact when both ends are equal. What was not observed is bounded, never taken for 0.
    """

    low: Number
    high: Number

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if math.isnan(self.low) or math.isnan(self.high) or not self.low <= self.high <= _ROUNDING:
            raise ValueError(f"not an interval of log-probabilities: [{self.low}, {self.high}]")
        return self

    @classmethod
    def exact(cls, value: float) -> Self:
        """A log-probability that was computed, not bounded."""
        return cls(low=value, high=value)


class CandidateScore(Strict):
    """The score of one candidate: of its whole string, and of its first token alone."""

    total: LogProbability
    first_token: LogProbability
    n_tokens: Annotated[int, Field(ge=1)]


class ScoringResult(Strict):
    """The scores of a query's candidates (label -> score) and the method that produced them.

    `is_cut` where the context was too long for the model, so that its beginning was not shown.
    """

    id: str
    candidates: dict[str, CandidateScore]
    method: str
    is_cut: bool = False


class GenerationResult(Strict):
    """Sampled texts for a query, and the prompt as the model saw it.

    They are those samples whose numbers begin with `first_sample`: a query can be answered in parts.
    """

    id: str
    prompt: str
    texts: tuple[str, ...]
    first_sample: FirstSample = 0

    @property
    def samples(self) -> range:
        """The numbers of its texts."""
        return range(self.first_sample, self.first_sample + len(self.texts))


def join_parts(parts: Iterable[GenerationResult]) -> dict[str, GenerationResult]:
    """Query id -> everything that was sampled for it, in the order of the samples."""
    of_queries: dict[str, list[GenerationResult]] = {}
    for part in parts:
        of_queries.setdefault(part.id, []).append(part)
    joined: dict[str, GenerationResult] = {}
    for query_id, results in of_queries.items():
        results.sort(key=lambda part: part.first_sample)
        texts = tuple(text for part in results for text in part.texts)
        joined[query_id] = results[0].model_copy(update={"texts": texts})
    return joined


def n_answers(one: Any) -> int:  # noqa: ANN401 - a query or a result, of any kind
    """How many answers a query asks for, or a result has."""
    return len(one.samples) if isinstance(one, GenerationQuery | GenerationResult) else 1


class Completion(Strict):
    """A whole completion and its natural log-probability given the context, end token included."""

    text: str
    log_probability: Number


class SearchResult(Strict):
    """The completions of a query that are likely enough, likeliest first.

    They differ in their tokens; a text that falls into tokens in several ways can come several times.
    """

    id: str
    completions: tuple[Completion, ...]


class Rewards(Strict):
    """What direct preference optimisation makes of a batch, as TRL reports it.

    An answer's implicit reward is beta times what its log-probability has gained on the reference's.
    `chosen` and `rejected` are the means over pairs, `accuracy` the share of pairs whose preferred
    answer has the higher one.
    """

    chosen: Number
    rejected: Number
    accuracy: Number


REWARD_COLUMNS = {
    "rewards/chosen": "chosen",
    "rewards/rejected": "rejected",
    "rewards/accuracies": "accuracy",
}
"""What TRL's logs, and result files here, call them."""


class CurvePoint(Strict):
    """One optimiser step of a training curve; losses are means, in nats.

    They are over loss-bearing tokens, and of preferences over pairs, which have rewards as well. A
    training that diverged has losses that are not finite.
    """

    step: int
    train_loss: Number
    validation_loss: Number | None = None
    rewards: Rewards | None = None


class TunedModel(Strict):
    """A finished fine-tune: which model it gave and how.

    `model` is what `Backend.score` takes; `hyperparameters` are those that were used, after every
    "auto" was resolved. `trained_tokens` counts tokens times epochs; `cost_usd` is None where
    nothing is billed.
    """

    model: str
    base_model: str
    hyperparameters: dict[str, Any]
    n_examples: int
    trained_tokens: int
    seconds: float
    cost_usd: float | None
    training_curve: tuple[CurvePoint, ...]

    @property
    def last_loss(self) -> str:
        """The last training loss for a reader; a service may give no curve."""
        return f"{self.training_curve[-1].train_loss:.4f}" if self.training_curve else "unknown"
