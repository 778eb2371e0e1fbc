"""Step 3: asks every arm its queries and writes down the answers as they come.

uv run python kaarel_bet/test.py [--backend NAME] [--set key.path=value] ...
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from backends.data import GenerationQuery, GenerationResult
from backends.errors import DataError, ModelError, RefusedError
from backends.interface import Backend, Estimate
from kaarel_bet.earlier_answers import earlier_answers, note_who_answers
from kaarel_bet.manifest import EvaluationEntry, Kind
from kaarel_bet.progress import progress
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.train import train


def test(session: Session) -> None:
    """Does nothing for queries that have their result."""
    train(session)
    run = session.run
    ask_missing(session, "test", run.manifest().evaluations)
    for round_ in range(1, session.experiment.rounds + 1):
        _write_follow_ups(session, round_)
        ask_missing(session, "test, following up", run.follow_ups())


def _write_follow_ups(session: Session, round_: int) -> None:
    run = session.run
    if run.has_follow_ups(round_):
        return
    with run.writing():
        if not run.has_follow_ups(round_):  # another process was not faster
            known = {entry.name for entry in run.evaluations()}
            found = session.experiment.follow_ups(run.answers())
            run.write_follow_ups([one for one in found if one.name not in known], round_)


Unaskable = Callable[[Any, str], Any]
"""What stands for the result of a query that can't be asked, and the reason."""


def ask_missing(
    session: Session,
    what: str,
    evaluations: Sequence[EvaluationEntry],
    *,
    unaskable: Unaskable | None = None,
) -> None:
    """Asks the models of some evaluations whatever they have not answered yet.

    A query that its model can't be asked is an error, or has what `unaskable` makes of it.

    Raises:
        DataError: a query can't be asked.
        RefusedError: a service will not answer some queries; the others have been asked.
        ModelError: models that can't be had; the others have been asked.
    """
    run = session.run
    if not _unasked(run, evaluations):
        return
    with run.writing():
        missing = _unasked(run, evaluations)  # another process may have asked in between
        models = {asking.arm: _model(session, asking.arm) for asking in missing}
        gone: dict[str, ModelError] = {}  # they keep nobody from asking the others
        left: list[Asking] = []
        estimates: list[tuple[Backend, Estimate]] = []
        for arm, model in models.items():
            for asking in _take_over(session, model, [one for one in missing if one.arm == arm]):
                try:
                    askable, estimate = _askable(session, model, asking, unaskable)
                except ModelError as error:
                    gone.setdefault(arm, error)
                    continue
                left += [askable] if askable.queries else []
                estimates.append((model.backend, estimate))
        there = [asking for asking in left if asking.arm not in gone]
        if there:
            n_queries = sum(len(asking.queries) for asking in there)
            n_models = len({asking.arm for asking in there})
            session.agree_to(f"{what}: {n_queries} queries to {n_models} models", estimates)
        refused: dict[str, str] = {}
        for arm in dict.fromkeys(asking.arm for asking in there):
            of_arm = [asking for asking in there if asking.arm == arm]
            try:
                session.close_others(models[arm].backend)
                reasons = _ask(session, models[arm], of_arm, what)
            except ModelError as error:
                gone[arm] = error
                continue
            if unaskable:
                _stand_in(session, of_arm, reasons, unaskable)
            else:
                refused |= {f"{arm}, {query_id}": reason for query_id, reason in reasons.items()}
        if gone:
            raise _without(run, gone)
        if refused:
            raise RefusedError(refused)


def _without_name(result: Any) -> Any:  # noqa: ANN401 - of any kind
    """A result by the id that its query has within the evaluation."""
    return result.model_copy(update={"id": result.id.partition("/")[2]})


def _without(run: RunDirectory, gone: Mapping[str, ModelError]) -> ModelError:
    """What is said of arms whose models can't be had, and how to have them trained anew."""
    arms: dict[str, list[str]] = {}
    for arm, error in gone.items():
        arms.setdefault(str(error), []).append(arm)
    said = "; ".join(f"arm {', '.join(names)}: {error}" for error, names in arms.items())
    # The job as well, or it would be taken up again; and what the model that is gone has answered.
    left = [
        path
        for arm, error in gone.items()
        if run.has_model(arm) and run.model(arm).model in str(error)
        for path in (
            run.model_path(arm).with_name(f"{arm}.json"),
            run.model_path(arm).with_name(f"{arm}.job.json"),
            *(run.path / "scores" / arm).glob("*.jsonl"),
        )
        if path.exists() and path.stat().st_size
    ]
    hint = f" (to train anew, remove {', '.join(map(str, left))})" if left else ""
    return ModelError(f"{said}{hint}")


@dataclass(frozen=True)
class Asking:
    """The queries of an evaluation that an arm has not answered yet.

    Ids are unique within an evaluation only, so theirs have its name before them: NAME/ID.
    """

    arm: str
    evaluation: EvaluationEntry
    queries: list[Any]


def _unasked(run: RunDirectory, evaluations: Sequence[EvaluationEntry]) -> list[Asking]:
    askings = []
    for evaluation in evaluations:
        for arm in evaluation.arms:
            missing = [
                query.model_copy(update={"id": f"{evaluation.name}/{query.id}"})
                for query in run.unanswered(arm, evaluation)
            ]
            if missing:
                askings.append(Asking(arm, evaluation, missing))
    return askings


class _Model(NamedTuple):
    """A model as a backend takes it, and the backend that has it."""

    backend: Backend
    name: str


def _model(session: Session, arm: str) -> _Model:
    entry = next(entry for entry in session.run.manifest().arms if entry.name == arm)
    backend = session.backend_of(entry)
    return _Model(
        backend, session.run.model(arm).model if entry.training_file else backend.base_model
    )


def _askable(
    session: Session, model: _Model, asking: Asking, unaskable: Unaskable | None
) -> tuple[Asking, Estimate]:
    """What of it can be asked, and what that takes; what stands for the rest is written down."""
    estimate = partial(model.backend.estimate, model=model.name)
    try:
        return asking, estimate(asking.queries)
    except DataError:
        if unaskable is None:
            raise
    queries: list[Any] = []
    reasons: dict[str, str] = {}
    for query in asking.queries:
        try:
            estimate([query])
            queries.append(query)
        except DataError as error:
            reasons[query.id] = str(error)
    _stand_in(session, [asking], reasons, unaskable)
    left = replace(asking, queries=queries)
    return left, estimate(queries) if queries else Estimate(tokens=0)


def _stand_in(
    session: Session, askings: Sequence[Asking], reasons: Mapping[str, str], unaskable: Unaskable
) -> None:
    """Writes down what stands for the results of queries (by id) that can't be asked."""
    for asking in askings:
        missing = session.run.unanswered(asking.arm, asking.evaluation)
        named = ((query, f"{asking.evaluation.name}/{query.id}") for query in missing)
        results = [unaskable(query, reasons[name]) for query, name in named if name in reasons]
        if not results:
            continue
        with session.run.open_results(asking.arm, asking.evaluation) as file:
            file.append(results)
        where = f"{asking.arm}, {asking.evaluation.name}"
        session.say(
            f"{where}: {len(results)} of {len(asking.queries)} queries can't be asked: "
            f"{next(iter(reasons.values()))}"
        )


def _take_over(session: Session, model: _Model, askings: Sequence[Asking]) -> Sequence[Asking]:
    """Makes answers that other runs had to the same queries this run's; returns what is left to ask."""
    run, arm = session.run, askings[0].arm
    try:
        identity = model.backend.asked_as(model.name)
    except ModelError:  # said when it is asked
        identity = None
    if identity is None:
        return askings
    note_who_answers(run.results_directory(arm, askings[0].evaluation), identity)
    queries = [query for asking in askings for query in asking.queries]
    found = {result.id: (name, result) for name, result in earlier_answers(run, identity, queries)}
    if not found:
        return askings
    left: list[Asking] = []
    for asking in askings:
        results = [_without_name(found[q.id][1]) for q in asking.queries if q.id in found]
        if results:
            with run.open_results(arm, asking.evaluation) as file:
                file.append(results)
        if new := [query for query in asking.queries if query.id not in found]:
            left.append(replace(asking, queries=new))
    runs = ", ".join(dict.fromkeys(name for name, _ in found.values()))
    session.say(f"{arm}: {len(found)} answers as given in {runs}")
    return left


def _ask(session: Session, model: _Model, askings: list[Asking], what: str) -> dict[str, str]:
    """Returns the ids of queries that were refused, with the reasons."""
    total = sum(_answers_in(query) for asking in askings for query in asking.queries)
    done = 0
    refused: dict[str, str] = {}
    of_kinds: dict[Kind, list[Asking]] = {}
    for asking in askings:
        of_kinds.setdefault(asking.evaluation.kind, []).append(asking)
    with progress(session.console, f"{what.partition(',')[0]} {askings[0].arm}") as report:
        for kind, of_kind in of_kinds.items():
            # At once, so that evaluations can share the computing of what their prompts have in
            # common, and a service is kept busy to the end.
            queries = [query for asking in of_kind for query in asking.queries]
            with ExitStack() as opened:
                files = {
                    asking.evaluation.name: opened.enter_context(
                        session.run.open_results(asking.arm, asking.evaluation)
                    )
                    for asking in of_kind
                }
                try:
                    for result in _answers(model, kind, queries):
                        name = result.id.partition("/")[0]
                        files[name].append([_without_name(result)])
                        done += _answers_in(result)
                        report(done, total, name)
                except RefusedError as error:
                    refused |= error.refused
    return refused


def _answers_in(one: Any) -> int:  # noqa: ANN401 - a query or a result, of any kind
    return len(one.samples) if isinstance(one, GenerationQuery | GenerationResult) else 1


def _answers(model: _Model, kind: Kind, queries: Sequence[Any]) -> Iterator[Any]:
    match kind:
        case "scoring":
            return model.backend.score(model.name, queries)
        case "generation":
            return model.backend.generate(model.name, queries)
        case "search":
            return model.backend.search(model.name, queries)


if __name__ == "__main__":
    from kaarel_bet.cli import run_script

    sys.exit(run_script("test"))
