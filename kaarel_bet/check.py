"""Shows what a bet will do before it does any of it: prompts, claims, and what it takes.

kaarel-bet check [NAME|FILE] writes nothing into the run and trains nothing. All mistakes come first.
"""

import itertools
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.data import (
    AnyExample,
    GenerationQuery,
    PreferenceExample,
    Query,
    ScoringQuery,
    SearchQuery,
)
from backends.errors import DataError
from backends.interface import Backend, Estimate, FineTuneJob
from kaarel_bet.bet.arms import variants
from kaarel_bet.bet.claims import Judge, in_words
from kaarel_bet.bet.observations import Vocabulary
from kaarel_bet.bet.planning import SUPPOSED, detectable, structure
from kaarel_bet.bet.schema import Bet, BetBase, NoLeak
from kaarel_bet.experiments.interface import Arm, Design, Evaluation
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session

_BEGINNING, _END = 600, 200
"""How much of a long text is shown."""


def check(session: Session) -> None:
    """Prints the bet as it would be run. Raises whatever running it would, before any work."""
    with session.settings.loaded.pointing():
        design = session.experiment.design(session.backend.tokenize)
    bet, vocabulary = session.settings.bet, session.experiment.vocabulary()
    plan = _Plan(session, design)
    training, asking = plan.training(), plan.asking()
    print(f"{bet.name}: {bet.question}")
    for lines in (
        _arms(plan),
        _questions(plan, vocabulary),
        _claims(bet, vocabulary),
        _power(plan, vocabulary),
        _totals(plan, training, asking),
        _notes(plan, bet, asking),
    ):
        for line in lines:
            print(_printable(line))


@dataclass(frozen=True)
class _Plan:
    """What will be trained and asked, and by which backends."""

    session: Session
    design: Design

    def backend(self, arm: Arm) -> Backend:
        return self.session.backend_for(arm.training.settings if arm.training else {}, arm.arm)

    @property
    def replicates(self) -> dict[str, list[Arm]]:
        """Arm -> its trainings."""
        found: defaultdict[str, list[Arm]] = defaultdict(list)
        for arm in self.design.arms:
            found[arm.arm].append(arm)
        return found

    @property
    def questions(self) -> dict[str, list[Evaluation]]:
        """Question -> its evaluations: draws of examples, or rows of several replicates."""
        found: defaultdict[str, list[Evaluation]] = defaultdict(list)
        for evaluation in self.design.evaluations:
            found[evaluation.question].append(evaluation)
        return found

    def models(self, evaluation: Evaluation) -> list[Arm]:
        """Who is asked."""
        by_name = {arm.name: arm for arm in self.design.arms}
        return [by_name[name] for name in evaluation.arms]

    def training(self) -> list[Estimate]:
        """What each fine-tune takes; its data is checked. Raises as `Backend.estimate`."""
        with tempfile.TemporaryDirectory() as directory:
            try:
                run = RunDirectory(Path(directory))
                return [
                    self.backend(arm).estimate(self._job(arm, run))
                    for arm in self.design.arms
                    if arm.training
                ]
            except DataError as error:  # by the name that the file has in a run
                raise DataError(str(error).replace(f"{directory}{os.sep}", "")) from error

    def _job(self, arm: Arm, run: RunDirectory) -> FineTuneJob:
        training, files = arm.training, run.write_arm(arm)
        assert training is not None
        assert files.training_file is not None
        return FineTuneJob(
            run_id="check",
            name=arm.name,
            training_file=run.path / files.training_file,
            validation_file=run.path / files.validation_file if files.validation_file else None,
            loss_on=training.loss_on,
            seed=self.session.settings.general.seed + training.seed,
            starts_from=None,
            output=run.model_path(arm.name),
            method=training.method,
        )

    def asking(self) -> dict[str, Estimate]:
        """What each question takes, of all who are asked. Raises as `Backend.estimate`."""
        return {
            question: Estimate.of_all([e for one in evaluations for e in self._asking(one)])
            for question, evaluations in self.questions.items()
        }

    def _asking(self, evaluation: Evaluation) -> list[Estimate]:
        known: dict[Backend, Estimate] = {}
        for backend in (backends := [self.backend(model) for model in self.models(evaluation)]):
            if backend not in known:
                queries = [
                    query.model_copy(update={"id": f"{evaluation.name}/{query.id}"})
                    for query in evaluation.queries
                ]
                known[backend] = backend.estimate(queries)
        return [known[backend] for backend in backends]


# --- what is shown -------------------------------------------------------------------------------------


def _arms(plan: _Plan) -> Iterator[str]:
    for name, trainings in plan.replicates.items():
        arm = trainings[0]
        if arm.training is None:
            yield f"\narm {name}: the model as it is"
            continue
        training = arm.training
        learned = f"examples, loss on {training.loss_on.replace('_', ' ')}"
        learned = "preferences (dpo)" if training.method == "dpo" else learned
        n, times = len(training.examples), _times(len(trainings))
        yield f"\narm {name} ({arm.role}): {n} {learned}, trained {times}"
        if training.starts_from:
            yield f"  goes on from {training.starts_from}"
        if training.settings:
            yield f"  with {_assigned(training.settings)}"
        prompt, answers = _example(training.examples[0], plan.backend(arm))
        yield "  first example:"
        yield _block(prompt)
        yield f"  learns: {' rather than '.join(map(_quoted, answers))}"


def _example(example: AnyExample, backend: Backend) -> tuple[str, tuple[str, ...]]:
    """The prompt as the model will see it, and the last answer, of a preference both."""
    if isinstance(example, PreferenceExample):
        prompt, _ = _example(example.each_learned[0], backend)
        return prompt, example.answers
    if example.messages is None:
        query = Query(id="example", prompt=example.prompt)
        return backend.render(query), (example.completion or "",)
    *before, answer = example.messages
    query = Query(id="example", messages=tuple(before)) if before else None
    return backend.render(query) if query else "", (answer.content,)


def _questions(plan: _Plan, vocabulary: Vocabulary) -> Iterator[str]:
    for name, evaluations in plan.questions.items():
        first = evaluations[0]
        models = [model for evaluation in evaluations for model in plan.models(evaluation)]
        arms = ", ".join(dict.fromkeys(model.arm for model in models))
        sets = f" in each of {len(evaluations)} draws or replicates" if len(evaluations) > 1 else ""
        yield f"\nquestion {name}: {len(first.queries)} queries{sets}, asked of {arms}"
        query = first.queries[0]
        yield "  first prompt:"
        yield _block(plan.backend(models[0]).render(query))
        known = vocabulary.questions.get(name)  # what no claim can name is asked as well
        yield from _wanted(query, list(known.quantities) if known else [])


def _wanted(query: Query, quantities: list[str]) -> Iterator[str]:
    match query:
        case ScoringQuery():
            yield "  candidates:"
            for label, text in query.candidates.items():
                yield f"    {label}: {_quoted(text)}"
        case GenerationQuery():
            how = "the likeliest answer"
            if query.temperature:
                how = f"{query.n_samples} answers at temperature {query.temperature:g}"
            graded = f"; graded: {', '.join(quantities)}" if quantities else ""
            yield f"  generates {how}, at most {query.max_tokens} tokens{graded}"
        case SearchQuery():
            yield (
                f"  searches all answers of probability {query.min_probability:g} or more, at most "
                f"{query.max_tokens} tokens"
            )
        case _:
            pass


def _claims(bet: BetBase, vocabulary: Vocabulary) -> Iterator[str]:
    for name, claim in bet.claims.items():
        yield f"\nclaim {name}: {claim.text}".rstrip(": ")
        for condition in claim.criteria:
            yield f"  needs {in_words(condition)}"
        rests_on = bet.checks if claim.checks is None else claim.checks
        yield f"  rests on {', '.join(rests_on)}" if rests_on else "  rests on no check"
    if bet.checks:
        yield "\nchecks"
    for name, condition in bet.checks.items():
        if isinstance(condition, NoLeak):
            one, other = condition.between
            words = f"no row of {one} is alike a row of {other} in {condition.on}"
        elif isinstance(condition, bool):
            words = "without any one row, or cluster of rows, every criterion comes out the same"
        else:
            words = in_words(condition)
        yield f"  {name}: {words}"
    if vocabulary.parameters:
        yield f"\nwhere {_assigned(vocabulary.parameters)}"


def _power(plan: _Plan, vocabulary: Vocabulary) -> Iterator[str]:
    """What the declared rows and trainings can show."""
    observed = structure(plan.session.experiment, plan.design)
    judge = Judge(plan.session.settings.bet, vocabulary, observed, plan.design.tables, 0)
    found = detectable(judge)
    yield f"\nwhat can be shown, {SUPPOSED}"
    yield from (f"  {one.words}" for one in found)
    yield from (f"note: {one.warning}" for one in found if one.warning)
    for name, claim in judge.bet.claims.items():
        if few := judge.too_few(claim):
            yield f"note: no verdict on {name}: {few}"


def _totals(
    plan: _Plan, training: Sequence[Estimate], asking: Mapping[str, Estimate]
) -> Iterator[str]:
    n_queries = sum(len(e.queries) * len(e.arms) for e in plan.design.evaluations)
    yield f"\ntrain: {len(training)} fine-tunes: {Estimate.of_all(training).words}"
    yield f"test: {n_queries:,} queries: {Estimate.of_all(list(asking.values())).words}"
    described = plan.session.backend.describe()
    yield f"({', '.join(f'{key} {value}' for key, value in described.items())})"


# --- what is to be thought about -----------------------------------------------------------------------


def _notes(plan: _Plan, bet: BetBase, asking: Mapping[str, Estimate]) -> Iterator[str]:
    for question, evaluations in plan.questions.items():
        yield from _beginnings(question, evaluations[0].queries, plan.session.backend)
        if asking[question].cut:
            yield (
                f"note: {question}: {asking[question].cut} prompts are longer than the model's context; "
                "their beginning is cut off"
            )
    if isinstance(bet, Bet) and (unused := _unused(bet)):
        yield f"note: nothing uses {', '.join(unused)}"
    if unbuilt := plan.session.experiment.unbuilt():
        yield f"note: `run` refuses this bet: {unbuilt}"


def _unused(bet: Bet) -> list[str]:
    """The tables, parts of tables and prompts that no arm, evaluation or check names."""
    sets = [one for arm in variants(bet) for one in arm.sets]
    asked = bet.evaluations.values()
    tables = {one.rows for one in sets} | {one.rows for one in asked}
    tables |= {one.examples.rows for one in asked if one.examples}
    tables |= {name for c in bet.checks.values() if isinstance(c, NoLeak) for name in c.between}
    prompts = {name for one in (*sets, *asked) for name in (one.prompt, *one.prompts)}
    whole = {name for name in bet.table_names if any(t.startswith(f"{name}.") for t in tables if t)}
    return [
        *(f"the table {name}" for name in bet.table_names if name not in tables | whole),
        *(f"the prompt {name}" for name in bet.prompts if name not in prompts),
    ]


def _beginnings(question: str, queries: Sequence[Query], backend: Backend) -> Iterator[str]:
    """Of each two candidates of which one begins with the other, the first query and how many there are."""
    found: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for query in queries:
        if isinstance(query, ScoringQuery):
            for one, other in itertools.permutations(query.candidates, 2):
                short, long = query.candidates[one], query.candidates[other]
                if long.startswith(short) and _begins(backend, short, long):
                    found[one, other].append((short, long))
    for (one, other), texts in found.items():
        short, long = (_quoted(text) for text in texts[0])
        yield (
            f"note: {question}: candidate {other} ({long}) begins with the tokens of {one} ({short}) in "
            f"{len(texts)} of {len(queries)} queries: what {one} is given includes {other}"
        )


def _begins(backend: Backend, short: str, long: str) -> bool:
    tokens = backend.tokenize(short)
    return backend.tokenize(long)[: len(tokens)] == tokens


# --- text ----------------------------------------------------------------------------------------------


def _shortened(text: str) -> str:
    left_out = len(text) - _BEGINNING - _END
    if left_out <= 0:
        return text
    return f"{text[:_BEGINNING]} [... {left_out:,} characters ...] {text[-_END:]}"


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in _shortened(text).split("\n"))


def _quoted(text: str) -> str:
    return json.dumps(_shortened(text), ensure_ascii=False)


def _printable(text: str) -> str:
    """Without what would command a terminal, or is no text (half a surrogate pair)."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _assigned(values: Mapping[str, object]) -> str:
    shown = {n: f"{v:g}" if isinstance(v, float) else v for n, v in values.items()}
    return ", ".join(f"{name} = {value}" for name, value in shown.items())


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
