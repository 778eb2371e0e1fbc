"""What an experiment is: pure functions from settings to data, and from scores to verdicts.

No network and no model. The one thing that data may depend on beside settings and seed is how a
text falls into tokens, which is handed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backends.data import (
    GenerationQuery,
    GenerationResult,
    LogProbability,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TrainingExample,
)
from backends.interface import LossOn
from backends.schema import Strict
from kaarel_bet.claims import Verdict
from kaarel_bet.content import Section

Tokenize = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True)
class Training:
    """What an arm is fine-tuned on. `starts_from` names the arm it continues, None for the base.

    `seed` is added to the run's: arms that are to differ by chance alone have different ones.
    """

    examples: Sequence[TrainingExample]
    validation: Sequence[TrainingExample] = ()
    loss_on: LossOn = "completion"
    starts_from: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Arm:
    """One model under test; without training it is the untouched base model."""

    name: str
    description: str
    training: Training | None


@dataclass(frozen=True)
class Evaluation:
    """A named list of one or more queries, all of the same kind, asked of some arms."""

    name: str
    description: str
    arms: Sequence[str]
    queries: Sequence[ScoringQuery] | Sequence[GenerationQuery] | Sequence[SearchQuery]


@dataclass(frozen=True)
class Design:
    """All of an experiment's data. `notes` (what was drawn, what was excluded) go into the manifest.

    `items` are records that `Experiment.findings` gets back with the scores: what must be known of the
    queries to judge the answers.
    """

    arms: Sequence[Arm]
    evaluations: Sequence[Evaluation]
    notes: Mapping[str, object] = field(default_factory=dict)
    items: Sequence[Strict] = ()


@dataclass(frozen=True)
class Scores:
    """Everything the test step found: arm -> evaluation -> results, in the order of the queries."""

    scoring: Mapping[str, Mapping[str, Sequence[ScoringResult]]]
    generation: Mapping[str, Mapping[str, Sequence[GenerationResult]]]
    items: Sequence[Mapping[str, Any]] = ()
    """The records of `Design.items`, as plain data."""
    search: Mapping[str, Mapping[str, Sequence[SearchResult]]] = field(
        default_factory=dict[str, Mapping[str, Sequence[SearchResult]]]
    )

    def totals(self, arm: str, evaluation: str, candidate: str) -> list[LogProbability]:
        """The whole-string log-probabilities of one candidate, one a query."""
        return [r.candidates[candidate].total for r in self.scoring[arm][evaluation]]

    def first_tokens(self, arm: str, evaluation: str, candidate: str) -> list[LogProbability]:
        """The first-token log-probabilities of one candidate, one a query."""
        return [r.candidates[candidate].first_token for r in self.scoring[arm][evaluation]]


@dataclass(frozen=True)
class Findings:
    """What an experiment makes of its scores: the verdicts, and what a reader needs to see."""

    question: str
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]


class Experiment(Protocol):
    """One experiment with its settings."""

    def design(self, tokenize: Tokenize) -> Design:
        """The training sets and evaluations. Raises SettingsError if the settings can't be met."""
        ...

    def follow_ups(self, scores: Scores) -> Sequence[Evaluation]:
        """Evaluations whose queries depend on the answers to the design's, which are all there is yet.

        Asked for once in a run; their names are none of the design's.
        """
        return ()

    def findings(self, scores: Scores) -> Findings:
        """The verdicts on the experiment's claims and the content of its report."""
        ...
