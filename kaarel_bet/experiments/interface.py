"""What an experiment is: pure functions from settings to data, and from answers to observations.

No network and no model. The one thing that data may depend on beside settings and seed is how a
text falls into tokens, which is handed in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from backends.data import (
    AnyExample,
    GenerationQuery,
    PreferenceExample,
    Query,
    ScoringQuery,
    SearchQuery,
    TrainingMethod,
)
from backends.interface import LossOn
from kaarel_bet.bet.observations import BASE as BASE
from kaarel_bet.bet.observations import Observation, Vocabulary
from kaarel_bet.bet.schema import BetBase
from kaarel_bet.content import Section
from kaarel_bet.manifest import ArmEntry, EvaluationEntry, Kind

if TYPE_CHECKING:  # it reads tables, which are of rows as they are here
    from kaarel_bet.bet.claims import Judge

Tokenize = Callable[[str], tuple[int, ...]]
Row = Mapping[str, Any]
"""Column -> value; `id` is a text that no other row of the table has."""


@dataclass(frozen=True)
class Training:
    """What a model is fine-tuned on: examples, or preferences throughout.

    `starts_from` names the model it goes on from, None for the base. `seed` is added to the run's: models
    that are to differ by chance alone have different ones. `settings` are the arm's own, by dotted path.
    """

    examples: Sequence[AnyExample]
    validation: Sequence[AnyExample] = ()
    loss_on: LossOn = "completion"
    starts_from: str | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def method(self) -> TrainingMethod:
        """What learns from such examples."""
        return "dpo" if isinstance(self.examples[0], PreferenceExample) else "supervised"


@dataclass(frozen=True)
class Arm:
    """One training of an arm: a model under test. Without training it is the untouched base model.

    `name` is the model's, unique in the run; `arm` and `replicate` (from 1) say what it is of.
    """

    name: str
    description: str
    training: Training | None
    arm: str
    replicate: int = 1
    role: str = "treatment"

    def entry(
        self, training_file: str | None = None, validation_file: str | None = None
    ) -> ArmEntry:
        """As the manifest has it, with its data in these files."""
        training = self.training
        return ArmEntry(
            name=self.name,
            arm=self.arm,
            replicate=self.replicate,
            role=self.role,
            description=self.description,
            training_file=training_file,
            validation_file=validation_file,
            method=training.method if training else "supervised",
            loss_on=training.loss_on if training else None,
            starts_from=training.starts_from if training else None,
            seed=training.seed if training else 0,
            settings=dict(training.settings) if training else {},
        )


def of_replicate(name: str, replicate: int) -> str:
    """Of a model or evaluation: more replicates leave the names of those there are."""
    return name if replicate == 1 else f"{name}-{replicate}"


_KINDS: dict[type[Query], Kind] = {
    ScoringQuery: "scoring",
    GenerationQuery: "generation",
    SearchQuery: "search",
}


@dataclass(frozen=True)
class Evaluation:
    """A named list of one or more queries, all of the same kind, asked of some models.

    It is one `question` (what claims name), in one `draw` of its few-shot examples. `replicate` is that of
    its rows, where they are one replicate's.
    """

    name: str
    question: str
    description: str
    arms: Sequence[str]
    queries: Sequence[ScoringQuery] | Sequence[GenerationQuery] | Sequence[SearchQuery]
    replicate: int | None = None
    draw: int = 1
    table: str | None = None

    def entry(self, queries_file: str = "") -> EvaluationEntry:
        """As the manifest has it, with its queries in this file."""
        return EvaluationEntry(
            name=self.name,
            question=self.question,
            replicate=self.replicate,
            draw=self.draw,
            description=self.description,
            kind=_KINDS[type(self.queries[0])],
            arms=tuple(self.arms),
            table=self.table,
            queries_file=queries_file,
            n_queries=len(self.queries),
        )


@dataclass(frozen=True)
class Design:
    """All of an experiment's data. `notes` (what was drawn, what was excluded) go into the manifest.

    `tables` are the rows that it was made of, which come back with the answers.
    """

    arms: Sequence[Arm]
    evaluations: Sequence[Evaluation]
    notes: Mapping[str, object] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict[str, Sequence[Row]])


@dataclass(frozen=True)
class Asked:
    """What one model answered to one evaluation: one result a query, in the order of the queries."""

    arm: ArmEntry
    evaluation: EvaluationEntry
    results: Sequence[Any]

    @property
    def run(self) -> tuple[str, int, str, int]:
        """Arm, replicate, question and draw, as observations have them."""
        asked = self.evaluation
        return self.arm.arm, asked.replicate or self.arm.replicate, asked.question, asked.draw


@dataclass(frozen=True)
class Answers:
    """Everything the test step found, and the tables that it is about."""

    asked: Sequence[Asked]
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict[str, Sequence[Row]])


class Experiment(Protocol):
    """One bet with its settings."""

    @property
    def bet(self) -> BetBase:
        """What it claims."""
        ...

    def vocabulary(self) -> Vocabulary:
        """What claims and checks may name. Raises SettingsError for a name that does not exist."""
        ...

    def unbuilt(self) -> str | None:
        """What of the bet can be read and checked but not run yet, in words."""
        return None

    def design(self, tokenize: Tokenize) -> Design:
        """The training sets and evaluations. Raises SettingsError if the settings can't be met."""
        ...

    def follow_ups(self, answers: Answers) -> Sequence[Evaluation]:
        """Evaluations whose queries depend on the answers to the design's, which are all there is yet.

        Asked for once in a run; their names are none of the design's.
        """
        return ()

    def observe(self, answers: Answers) -> Iterable[Observation]:
        """The answers as observations: all that claims, checks and tables are computed from."""
        ...

    def sections(self, answers: Answers, judge: "Judge") -> Sequence[Section]:
        """The content of the report that is this experiment's own; the judge has the observations."""
        ...
