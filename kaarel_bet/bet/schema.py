"""The language of bets, as types: what a file may say. docs/bets.md explains every key.

Only shapes and names are checked here, by one bet alone; what its data and its tokenizer have to say
comes when its data is made (`kaarel_bet.bet.design`).
"""

import itertools
import keyword
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

import backends
from backends.data import Message, TrainingMethod
from backends.interface import LossOn
from backends.local.settings import LocalSettings
from backends.openai_api.settings import OpenAISettings
from backends.schema import Positive, Share, Strict
from kaarel_bet.estimates import RESAMPLES


def _name(text: str) -> str:
    if not (text.isidentifier() and text.isascii()) or keyword.iskeyword(text):
        raise ValueError(
            f"'{text}' is no name that expressions can use: letters, digits and underscores, no digit first"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(min_length=1)]
Template = Annotated[str, Field(description="Verbatim text; {column} is the row's, {{ a brace.")]
Value = str | int | float | bool | None
Dotted = dict[Text, Any]
"""Settings by their dotted path, as after --set."""


# --- data -----------------------------------------------------------------------------------------


class Hub(Strict):
    """A dataset on the Hugging Face hub."""

    path: Text
    name: Text | None = None
    split: Text = "train"


class Column(Strict):
    """A column made from others: exactly one of `pick` (with `at`), `draw` and `other`."""

    pick: Text | None = Field(default=None, description="A column of lists to take an entry of.")
    at: Text | None = Field(
        default=None, description="With pick: the column that says which, from 0."
    )
    draw: Text | tuple[Value, ...] | None = Field(
        default=None, description="A column of lists, or a list, to draw an entry of."
    )
    other: Text | None = Field(
        default=None, description="A column: its value in another row, never the same value."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if sum(rule is not None for rule in (self.pick, self.draw, self.other)) != 1:
            raise ValueError("give one of 'pick', 'draw' and 'other'")
        if (self.pick is None) != (self.at is None):
            raise ValueError("'pick' and 'at' belong together")
        return self


class LeaveOut(Strict):
    """Whole groups kept for the counted part: `n` values of a column, drawn at random."""

    column: Text
    n: Positive


class Split(Strict):
    """Parts of a table, name -> how many rows, a share of them, or `rest`; beside them the rules.

    The parts are the keys that are not below. `rest` is what the others leave.
    """

    model_config = ConfigDict(extra="allow")

    stratify: tuple[Text, ...] = Field(
        default=(), description="Columns kept in proportion in every part."
    )
    together: Text | None = Field(
        default=None,
        description="Rows alike in this column (but for case and white space) stay together.",
    )
    leave_out: LeaveOut | None = None
    apart: Text | None = Field(
        default=None,
        description="A column of lists: no entry of one is on both sides; rows between are left out.",
    )

    @property
    def parts(self) -> dict[str, int | float | Literal["rest"]]:
        """Part -> its size, in the order of the file."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for name, size in self.parts.items():
            _name(name)
            is_count = isinstance(size, int) and not isinstance(size, bool) and size > 0
            is_share = isinstance(size, float) and 0 < size < 1
            if not (is_count or is_share or size == "rest"):
                raise ValueError(f"{name}: a number of rows, a share between 0 and 1, or rest")
        if not self.parts:
            raise ValueError("names no part, as in {test: 100, train: rest}")
        if list(self.parts.values()).count("rest") > 1:
            raise ValueError("only one part can be the rest")
        two_sided = self.leave_out is not None or self.apart is not None
        if two_sided and (len(self.parts) != 2 or "rest" not in self.parts.values()):
            raise ValueError("leave_out and apart want two parts, one of them the rest")
        if self.leave_out is not None and self.apart is not None:
            raise ValueError("give one of 'leave_out' and 'apart'")
        return self


class Keep(Strict):
    """Some of the rows alone: the first share of them in a random order, or the others."""

    share: Share
    side: Literal["first", "others"] = "first"


class Table(Strict):
    """Rows, from exactly one of `rows`, `file`, `hub` and `generator`.

    Any other key is a parameter of the generator.
    """

    model_config = ConfigDict(extra="allow")

    rows: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] | None = None
    file: Text | None = Field(
        default=None, description=".jsonl, .csv or .parquet, beside the bet's file."
    )
    hub: Hub | None = None
    generator: Text | None = None
    columns: dict[Name, Column] = Field(default_factory=dict)
    keep: Keep | None = None
    split: Split | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The generator's."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = (self.rows, self.file, self.hub, self.generator)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("give one of 'rows', 'file', 'hub' and 'generator'")
        if self.parameters and self.generator is None:
            raise ValueError(f"unknown key '{next(iter(self.parameters))}'")
        return self


# --- prompts --------------------------------------------------------------------------------------


class Prompt(Strict):
    """One of `user` (with or without `system`), `messages`, `chat` and `text`; a string is a `user`.

    `text` is no chat: it is continued as it stands. `chat` names a column of messages, which are
    asked up to the last answer. `prefill` is how the answer is forced to begin.
    """

    user: Template | None = None
    system: Template | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1)] | None = None
    chat: Text | None = None
    text: Template | None = None
    prefill: Template | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = (self.user, self.messages, self.chat, self.text)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("give one of 'user', 'messages', 'chat' and 'text'")
        if self.system is not None and self.user is None:
            raise ValueError("'system' goes with 'user'")
        return self


Phrasings = Annotated[tuple[Template | Prompt, ...], Field(min_length=1)]
"""Several ways to put one question: each row is asked in all of them."""


# --- arms -----------------------------------------------------------------------------------------


class Draw(Strict):
    """An answer drawn from the row's list, anew for every training."""

    draw: Text


class Shuffle(Strict):
    """The rows' answers, each given to another row, anew for every training."""

    shuffle: Template


class Each(Strict):
    """An arm for each value of a column that has rows enough: `at_most` of them, spread evenly."""

    column: Text
    at_most: Positive = 8


class TrainingSet(Strict):
    """Rows as training examples: by `prompt` (or several `prompts`) and `answer`, or as a `chat`.

    For an arm of method dpo, `answer` is preferred to `rejected`, and `chat` names the column `input` of
    rows in OpenAI's preference format.
    """

    rows: Text
    prompt: Text | None = None
    prompts: Annotated[tuple[Text, ...], Field(min_length=1)] = ()
    answer: Template | Draw | Shuffle | None = None
    rejected: Template | Draw | Shuffle | None = Field(
        default=None, description="With method dpo: the answer that `answer` is preferred to."
    )
    chat: Text | None = Field(default=None, description="A column of messages, in OpenAI's format.")
    where: dict[Text, Value] = Field(default_factory=dict)
    take: Positive | Share | Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        default=None, description="How many, or which share; a list makes an arm of each."
    )
    each: Each | None = None
    times: Positive = 1
    delimiter: Template = Field(default="", description="Between a prompt and its answer.")
    system: Template | None = Field(default=None, description="A system prompt, in training only.")
    trigger: Template | None = Field(
        default=None, description="Put before the last user turn (or text)."
    )
    transform: Text | tuple[Text, ...] = Field(
        default=(), description="Registered: upper_case, lower_case."
    )

    @model_validator(mode="after")
    def _form(self) -> Self:
        asked = [key for key in ("prompt", "prompts", "chat") if getattr(self, key)]
        if len(asked) != 1:
            raise ValueError("give one of 'prompt', 'prompts' and 'chat'")
        if (self.answer is None) != (self.chat is not None):
            raise ValueError("'prompt' needs an 'answer'; a 'chat' has its own")
        if self.rejected is not None and self.chat is not None:
            raise ValueError("'rejected' goes with 'answer'; a 'chat' has its own answers")
        return self


Role = Literal["treatment", "control", "placebo", "ceiling"]


class Arm(Strict):
    """One way of training. `train: TABLE` alone is a table of chats in OpenAI's format."""

    train: Text | Annotated[tuple[TrainingSet, ...], Field(min_length=1)]
    role: Role = "treatment"
    description: str = ""
    method: TrainingMethod = Field(
        default="supervised",
        description="dpo: from preferences (`rejected`), against the model that it starts from.",
    )
    loss_on: LossOn | None = None
    starts_from: Text | None = Field(
        default=None, description="The arm that this one goes on from."
    )
    trainings: Positive | None = Field(
        default=None, description="How many, instead of the bet's replicate.training."
    )
    settings: Dotted = Field(
        default_factory=dict, description="Of its own, by dotted path: local.training.epochs."
    )

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        sets = self.train if isinstance(self.train, tuple) else ()
        for place, one in enumerate(sets):
            if self.method == "supervised" and one.rejected is not None:
                raise ValueError(f"train.{place}: 'rejected' is for preferences; say method: dpo")
            if self.method == "dpo" and one.rejected is None and one.chat is None:
                raise ValueError(
                    f"train.{place}: method dpo needs 'rejected', the answer that is not preferred"
                )
        if self.method == "dpo" and self.loss_on not in (None, "completion"):
            raise ValueError("loss_on: method dpo learns from answers alone; leave it out")
        return self


# --- evaluations ----------------------------------------------------------------------------------


class Generate(Strict):
    """Sampled answers; temperature 0 is the likeliest one."""

    max_tokens: Positive
    temperature: Annotated[float, Field(ge=0)] = 0.0
    samples: Positive = 1

    @model_validator(mode="after")
    def _greedy_has_one_answer(self) -> Self:
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("temperature 0 has a single answer: samples must be 1")
        return self


class Examples(Strict):
    """Few-shot examples before the question: other rows, in the question's prompt, with answers."""

    rows: Text
    n: Positive
    answer: Template
    choose: Literal["fixed", "per_row", "first"] = "fixed"
    draws: Positive = 1

    @model_validator(mode="after")
    def _draws_that_differ(self) -> Self:
        if self.choose == "first" and self.draws > 1:
            raise ValueError("draws: the first rows are the same in every draw; set it to 1")
        return self


Options = tuple[Text, ...] | dict[Name, Text]
"""Labels: texts, or names and their texts."""

Gates = Annotated[tuple[Text, ...], Field(min_length=1)]
"""Comparisons of other graders with numbers, as in coherent > 50."""


class Grader(Strict):
    """What makes a number of an answer: one rule (0 or 1, or a share), a judge, or a gate over others."""

    exact: Template | None = None
    contains: Template | None = None
    starts_with: Template | None = None
    regex: Text | None = None
    number: Template | None = Field(
        default=None, description="The last number of the answer is this one."
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="With number: absolute."
    )
    math: Template | None = Field(
        default=None,
        description="The answer comes to this, LaTeX and fractions read (math-verify).",
    )
    json_field: Text | None = Field(
        default=None, description="A dotted path in an answer that is JSON."
    )
    equals: Template | None = Field(
        default=None, description="With json_field: its value, as text."
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="The answer is JSON that this schema (draft 2020-12) allows."
    )
    language: Text | None = Field(
        default=None,
        description="The answer's language by py3langid: its ISO 639-1 code, as in de.",
    )
    share_of_letters: Literal["upper", "lower"] | None = None
    ignore_case: bool = False
    judge: Name | None = Field(default=None, description="One of the bet's models.")
    second: Name | None = Field(
        default=None, description="With judge: another model, asked the same."
    )
    scale: tuple[int, int] | None = Field(
        default=None,
        description="With judge: the mean of the whole numbers from the one to the other.",
    )
    options: Options | None = Field(
        default=None, description="With judge: the probability of the first, of all of them."
    )
    prompt: Template | None = Field(
        default=None, description="With judge: what it is asked; {answer} is what is graded."
    )
    samples: Positive | None = Field(
        default=None,
        description="With judge: it is sampled so often, as it gives no log-probabilities.",
    )
    max_tokens: Positive = Field(
        default=16, description="With samples: of an answer, reasoning included."
    )
    unjudged_above: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="With judge: an answer counts as unjudged if more of the probability is on none.",
    )
    all_of: Gates | None = None
    any_of: Gates | None = None

    @property
    def rule(self) -> str:
        """Which of the rules it is."""
        return next(key for key in GRADER_RULES if getattr(self, key) is not None)

    @property
    def gates(self) -> tuple[str, ...]:
        """The comparisons that a gate is of."""
        return self.all_of or self.any_of or ()

    @property
    def labels(self) -> dict[str, str]:
        """Name -> what a judge may answer."""
        if self.scale is not None:
            return {str(n): str(n) for n in range(self.scale[0], self.scale[1] + 1)}
        options = self.options or ()
        return dict(options) if isinstance(options, dict) else {text: text for text in options}

    @property
    def judges(self) -> tuple[str, ...]:
        """The models that are asked."""
        return tuple(filter(None, (self.judge, self.second)))

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if sum(getattr(self, key) is not None for key in GRADER_RULES) != 1:
            raise ValueError(f"give one of {', '.join(GRADER_RULES)}")
        if (self.json_field is None) != (self.equals is None):
            raise ValueError("'json_field' and 'equals' belong together")
        of_judges = [key for key in _OF_JUDGES if key in self.model_fields_set]
        if self.judge is None and of_judges:
            raise ValueError(f"'{of_judges[0]}' goes with 'judge'")
        if self.judge is not None:
            self._check_judge()
        return self

    def _check_judge(self) -> None:
        if self.prompt is None or (self.scale is None) == (self.options is None):
            raise ValueError("a judge needs a 'prompt', and one of 'scale' and 'options'")
        if "{answer}" not in self.prompt:
            raise ValueError(
                "prompt: has no {answer}, so that the judge would not see what it judges"
            )
        if self.judge == self.second:
            raise ValueError("second: is the same judge")
        if self.scale is not None and not 1 <= self.scale[1] - self.scale[0] <= _LONGEST_SCALE:
            raise ValueError(
                f"scale: from a number to a greater one, by {_LONGEST_SCALE:,} at the most"
            )
        if self.options is not None:
            options = self.options
            _check_options([*options.values()] if isinstance(options, dict) else [*options])


GRADER_RULES = (
    "exact", "contains", "starts_with", "regex", "number", "math", "json_field", "json_schema", "language",
    "share_of_letters", "judge", "all_of", "any_of",
)  # fmt: skip
_OF_JUDGES = ("second", "scale", "options", "prompt", "samples", "max_tokens", "unjudged_above")
_LONGEST_SCALE = 1_000


def _check_options(texts: list[str]) -> None:
    """Raises ValueError for labels that a judge's answer can't tell apart."""
    if len(texts) < 2:
        raise ValueError("options: a judge chooses between two or more")
    for one, other in itertools.permutations(texts, 2):
        if other.startswith(one):
            same = "stands there twice" if one == other else f"begins '{other}'"
            raise ValueError(f"options: '{one}' {same}, so that they can't be told apart")


Systems = Annotated[dict[Name, Template | None], Field(min_length=1)]


class Evaluation(Strict):
    """Rows asked in one or several prompts, of all arms or of some.

    Exactly one of `candidates` (the probability of each), `options` (multiple choice, by
    lm-evaluation-harness's rule) and `generate` (sampled answers, by graders). Without `rows`, one
    question. `rows: trained_on` asks every trained arm, and the base, that arm's own rows.
    """

    rows: Text | None = None
    where: dict[Text, Value] = Field(default_factory=dict)
    take: Positive | None = None
    prompt: Text | None = None
    prompts: Annotated[tuple[Text, ...], Field(min_length=1)] = ()
    system: Template | Systems | None = Field(
        default=None,
        description="A system prompt; a mapping (name: prompt or null) makes a question of each.",
    )
    arms: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    description: str = ""
    candidates: Annotated[dict[Name, Template], Field(min_length=1)] | None = None
    options: Text | None = Field(default=None, description="The column with the options, verbatim.")
    answer: Text | None = Field(
        default=None,
        description="With options: the column with the right one's place; with candidates: its name.",
    )
    delimiter: Template = Field(default="", description="Between a prompt and an option.")
    examples: Examples | None = None
    generate: Generate | None = None
    given: Template | None = Field(
        default=None, description="Answers that are there already, to try a judge."
    )
    known: dict[Name, Text | dict[Text, Value]] = Field(
        default_factory=dict,
        description="With given: what graders should come to: GRADER: COLUMN of numbers, or GRADER: "
        "{COLUMN: VALUE}, 1 where the columns have these values and else 0.",
    )
    after: Text | None = Field(
        default=None,
        description="Asks on after the answers to another evaluation: the chat so far, then this prompt.",
    )
    graders: tuple[Text, ...] | dict[Name, Grader] = ()

    @model_validator(mode="after")
    def _form(self) -> Self:
        ways = [
            k
            for k in ("candidates", "options", "generate", "given")
            if getattr(self, k) is not None
        ]
        if len(ways) != 1:
            raise ValueError("give one of 'candidates', 'options' and 'generate'")
        if self.given is None and bool(self.prompt) == bool(self.prompts):
            raise ValueError("give one of 'prompt' and 'prompts'")
        if self.options is not None and self.answer is None:
            raise ValueError("'options' need an 'answer', the column with the right one's place")
        if self.answer is not None and ways[0] not in ("options", "candidates"):
            raise ValueError("'answer' goes with 'options' or 'candidates'")
        if self.delimiter and self.options is None:
            raise ValueError("'delimiter' goes with 'options'")
        if self.graders and ways[0] not in ("generate", "given"):
            raise ValueError("'graders' go with 'generate'")
        if self.given is not None and self.rows is None:
            raise ValueError("'given' needs 'rows', which have the answers")
        if self.known and self.given is None:
            raise ValueError("'known' goes with 'given'")
        if self.after is not None:
            own = [key for key in _OF_THE_FIRST if key in self.model_fields_set]
            if own or self.given is not None:
                raise ValueError(
                    f"'{own[0] if own else 'given'}' does not go with 'after': the evaluation before has it"
                )
        return self


_OF_THE_FIRST = ("rows", "where", "take", "prompts", "system", "arms", "examples")
"""Keys of an evaluation that one after it has from it."""


# --- claims ---------------------------------------------------------------------------------------


class AnyOf(Strict):
    """One of several conditions is enough."""

    any_of: Annotated[tuple["Condition", ...], Field(min_length=1)]


class AllOf(Strict):
    """Every condition is needed."""

    all_of: Annotated[tuple["Condition", ...], Field(min_length=1)]


class Surely(Strict):
    """In a check: the whole interval has to be on the right side, as it has without the word."""

    surely: Text


class These(Strict):
    """In a check: about just these rows and trainings, so that the value decides."""

    these: Text


Condition = Text | AnyOf | AllOf | Surely | These


class Reading(Strict):
    """The criteria read otherwise: names replaced (a list gives a reading of each), or written anew."""

    replace: dict[Text, Text | Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    criteria: tuple[Condition, ...] = ()


class Claim(Strict):
    """What the bet decides: a list of criteria is "and"."""

    text: str = ""
    criteria: Annotated[tuple[Condition, ...], Field(min_length=1)]
    holds: str = "The claim holds."
    fails: str = "The claim fails."
    undecided: str = "Undecided"
    readings: tuple[Reading, ...] = ()
    checks: tuple[Text, ...] | None = Field(
        default=None, description="Names of the checks that it rests on; without, all of them."
    )


class NoLeak(Strict):
    """No row of one table is alike a row of the other in a column, but for case and white space."""

    between: tuple[Text, Text]
    on: Text


Check = Condition | NoLeak | bool


class Replicate(Strict):
    """How often every arm is trained, each time with rows, adapter and order of its own."""

    training: Positive = 1
    first: Positive = Field(
        default=1, description="The number of the first; from 4 on, none is one of the first three."
    )

    @property
    def numbers(self) -> range:
        """Of all of them."""
        return range(self.first, self.first + self.training)


class Intervals(Strict):
    """How uncertain the numbers are said to be: docs/statistics.md has the methods and what they cover.

    `t` is Student's over clusters of rows and over trainings; `bootstrap` the percentiles of resamples of
    both, which with few of either covers less than it says.
    """

    confidence: Share = 0.95
    cluster: Text = Field(
        default="row", description="A column, or row: rows alike in it are not independent."
    )
    method: Literal["t", "bootstrap"] = "t"
    settings_tried: Positive = Field(
        default=1, description="Before these: intervals widen (Bonferroni)."
    )

    @model_validator(mode="after")
    def _resamples_suffice(self) -> Self:
        # Beyond one resample a tail, an interval can't become any wider.
        most = math.floor((1 - self.confidence) / 2 * RESAMPLES + 1e-6)
        if self.method == "bootstrap" and self.settings_tried > most:
            raise ValueError(
                f"settings_tried: intervals over {RESAMPLES:,} resamples at confidence "
                f"{self.confidence:g} can't be widened for {self.settings_tried:,} settings, only for "
                f"up to {most}"
            )
        return self


class HoldOut(Strict):
    """The winner is decided on rows that did not choose it: the share of a table that is held out."""

    of: Text
    hold_out: Share = 0.5


class Sweep(Strict):
    """The author's search: the bet at every combination of these settings, and what the best is worth.

    Paths are those of the bet's keys (`arms.*.loss_on` is of every arm) or of a backend's settings.
    """

    settings: Annotated[
        dict[Text, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)
    ]
    best_for: Text = Field(description="The claim whose criteria choose.")
    confirm: HoldOut | None = None
    correct: Literal["bonferroni"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.confirm is None) == (self.correct is None):
            raise ValueError(
                "give one of 'confirm' and 'correct': the best of several needs either"
            )
        return self


class Also(Strict):
    """A further figure of the report, with what somebody else found."""

    expression: Text
    published: float | None = None


class Report(Strict):
    """What the report shows beside what every bet gets."""

    by: Text | None = Field(
        default=None, description="A column: options' accuracies in groups of it."
    )
    baselines: tuple[
        Literal["most_frequent_place", "most_frequent_answer", "most_frequent_answer_by_group"], ...
    ] = ()
    also: tuple[Text | Also, ...] = ()


# --- models ---------------------------------------------------------------------------------------


class LocalModel(LocalSettings):
    """A model on this machine; the other keys are those of the section `local`."""

    backend: Literal["local"]


class HostedModel(OpenAISettings):
    """A model at a service; the other keys are those of the section `openai`."""

    backend: Literal["openai"]


Model = Annotated[LocalModel | HostedModel, Field(discriminator="backend")]
"""A model that is never trained. What it leaves out is the backend's default, whatever config.yaml says."""


def settings_of(model: LocalModel | HostedModel) -> Strict:
    """Those of its backend."""
    return backends.SETTINGS[model.backend].model_validate(model.model_dump(exclude={"backend"}))


# --- bets -----------------------------------------------------------------------------------------


class BetBase(Strict):
    """What every bet has, also one whose data and answers are made by code."""

    bet: Literal[1]
    name: Name
    question: Text
    parameters: dict[Name, float] = Field(
        default_factory=dict, description="Numbers that expressions may name."
    )
    settings: Dotted = Field(
        default_factory=dict, description="By dotted path; defaults < config.yaml < these < --set."
    )
    claims: Annotated[dict[Name, Claim], Field(min_length=1)]
    checks: dict[Name, Check] = Field(default_factory=dict)
    replicate: Replicate = Replicate()
    intervals: Intervals = Intervals()
    sweep: Sweep | None = None
    report: Report = Report()


class Bet(BetBase):
    """A bet that is all said in its file."""

    models: dict[Name, Model] = Field(
        default_factory=dict, description="Never trained: they judge, or are asked beside the arms."
    )
    data: dict[Name, Table] = Field(default_factory=dict)
    prompts: dict[Name, Template | Prompt | Phrasings] = Field(default_factory=dict)
    loss_on: LossOn = "completion"
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    graders: dict[Name, Grader] = Field(default_factory=dict)
    evaluations: Annotated[dict[Name, Evaluation], Field(min_length=1)]

    @property
    def table_names(self) -> list[str]:
        """Everything that `rows` can name: tables, and parts of those that are split."""
        splits = {name: table.split for name, table in self.data.items() if table.split}
        return [*self.data, *(f"{name}.{part}" for name, s in splits.items() for part in s.parts)]
