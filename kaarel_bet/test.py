"""Step 3: asks every arm its queries and writes down the answers as they come.

uv run python kaarel_bet/test.py [--backend NAME] [--set key.path=value] ...
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from typing_extensions import override

from backends.data import TunedModel, n_answers
from backends.errors import DataError, ModelError, RefusedError
from backends.interface import Backend, Estimate, Progress
from backends.jsonl import AppendOnlyFile
from kaarel_bet.earlier_answers import earlier_answers, note_who_answers
from kaarel_bet.executors.carrying_out import Work, carry_out
from kaarel_bet.executors.interface import Executor
from kaarel_bet.executors.tasks import Questions, Task
from kaarel_bet.manifest import EvaluationEntry
from kaarel_bet.progress import Report
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.train import train


def test(*sessions: Session) -> None:
    """Does nothing for queries that have their result; of several sessions, all are asked together."""
    train(*sessions)
    ask_missing("test", [(one, one.run.manifest().evaluations) for one in sessions])
    for round_ in range(1, max(one.experiment.rounds for one in sessions) + 1):
        following = [one for one in sessions if one.experiment.rounds >= round_]
        for one in following:
            _write_follow_ups(one, round_)
        ask_missing("test, following up", [(one, one.run.follow_ups()) for one in following])


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
    what: str,
    of: Sequence[tuple[Session, Sequence[EvaluationEntry]]],
    *,
    unaskable: Unaskable | None = None,
) -> None:
    """Asks the models of some runs' evaluations whatever they have not answered yet.

    A query that its model can't be asked is an error, or has what `unaskable` makes of it.

    Raises:
        DataError: a query can't be asked.
        RefusedError: a service will not answer some queries; the others have been asked.
        ModelError: models that can't be had; the others have been asked.
    """
    behind = [(session, entries) for session, entries in of if _unasked(session.run, entries)]
    if not behind:
        return
    with ExitStack() as held:
        for session, _ in behind:
            held.enter_context(session.run.writing())
        asked = [_Asked(session, entries, what, unaskable) for session, entries in behind]
        works = [work for one in asked for work in one.works]
        session = behind[0][0]
        if works:
            n_queries = sum(work.n_queries for work in works)
            estimates = [estimate for one in asked for estimate in one.estimates]
            session.agree_to(f"{what}: {n_queries} queries to {len(works)} models", estimates)
        for executor, part in _by_executor(session, works):
            carry_out(what.partition(",")[0], part, executor, session.console, session.say)
        for one in asked:
            one.check()


def _by_executor(
    session: Session, works: Sequence["_AskedModel"]
) -> Iterator[tuple[Executor, list["_AskedModel"]]]:
    """Judges may well be asked here, and arms elsewhere."""
    for is_elsewhere in (True, False):
        part = [one for one in works if one.model.backend.capabilities.elsewhere is is_elsewhere]
        if part:
            yield session.executor_of(part[0].model.backend), part


class _Asked:
    """What is asked of one run's models; those that can't be had keep nobody from asking the others.

    Nor do queries that a service refuses.
    """

    def __init__(
        self,
        session: Session,
        evaluations: Sequence[EvaluationEntry],
        what: str,
        unaskable: Unaskable | None,
    ) -> None:
        missing = _unasked(session.run, evaluations)  # another process may have asked in between
        self._session, self._unaskable = session, unaskable
        self._gone: dict[str, ModelError] = {}
        self._refused: dict[str, str] = {}
        self.estimates: list[tuple[Backend, Estimate]] = []
        self.works: list[_AskedModel] = []
        for arm in dict.fromkeys(asking.arm for asking in missing):
            model, left = _model(session, arm), list[Asking]()
            identity = _identity(model)
            of_arm = [asking for asking in missing if asking.arm == arm]
            try:
                for asking in _take_over(session, identity, of_arm):
                    askable, estimate = _askable(session, model, asking, unaskable)
                    left += [askable] if askable.queries else []
                    self.estimates.append((model.backend, estimate))
            except ModelError as error:
                self._gone[arm] = error
                continue
            if left:
                title = f"{what.partition(',')[0]} {arm}"
                self.works.append(_AskedModel(title, session, model, identity, left, self))

    def failed(self, askings: Sequence["Asking"], error: Exception) -> Exception | None:
        """What an error of one model ends all of it with; None if it need not."""
        arm = askings[0].arm
        if isinstance(error, ModelError):
            self._gone[arm] = error
        elif not isinstance(error, RefusedError):
            return error
        elif self._unaskable is not None:
            _stand_in(self._session, askings, error.refused, self._unaskable)
        else:
            self._refused |= {f"{arm}, {query}": why for query, why in error.refused.items()}
        return None

    def check(self) -> None:
        """Raises ModelError: some could not be had; RefusedError: some would not answer all."""
        if self._gone:
            raise _without(self._session.run, self._gone)
        if self._refused:
            raise RefusedError(self._refused)


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


def _identity(model: _Model) -> str | None:
    """What its answers depend on beside the query; None where that can't be told."""
    try:
        return model.backend.asked_as(model.name)
    except ModelError:  # said when it is asked
        return None


def _take_over(
    session: Session, identity: str | None, askings: Sequence[Asking]
) -> Sequence[Asking]:
    """Makes answers that other runs had of such a model this run's; returns what is left to ask."""
    if identity is None:
        return askings
    run, arm = session.run, askings[0].arm
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


class _AskedModel(Work):
    """One model's share: evaluations at once, so that they can share the computing of what their prompts
    have in common, and a service is kept busy to the end."""

    after = None

    def __init__(
        self,
        title: str,
        session: Session,
        model: _Model,
        identity: str | None,
        askings: Sequence[Asking],
        whole: _Asked,
    ) -> None:
        self.title, self.model, self._identity = title, model, identity
        self._session, self._askings, self._whole = session, askings, whole
        self._files: dict[str, AppendOnlyFile] = {}

    @property
    def n_queries(self) -> int:
        """How many are to be asked."""
        return sum(len(asking.queries) for asking in self._askings)

    @override
    def prepare(self, report: Report) -> Task | None:
        if self._session.executor_settings is None:
            self._session.close_others(self.model.backend)
        else:  # another session's model, which is alike, may have answered in between
            self._askings = _take_over(self._session, self._identity, self._askings)
        if not self._askings:
            return None
        queries = [query for asking in self._askings for query in asking.queries]
        total = sum(map(n_answers, queries))
        done = 0

        def take(results: Sequence[Any]) -> None:
            nonlocal done
            for name, of_one in groupby(results, key=lambda result: result.id.partition("/")[0]):
                found = [_without_name(result) for result in of_one]
                self._file(name).append(found)
                done += sum(map(n_answers, found))
                report(done, total, name)

        def heard(now: Progress) -> None:
            report(now.done, now.total, "")

        asked = Questions(self.model.name, queries)
        return Task(self.model.backend, asked, self._identity, report=heard, take=take)

    @override
    def finish(self, tuned: TunedModel | None) -> None:
        for file in self._files.values():
            file.close()

    @override
    def failed(self, error: Exception) -> Exception | None:
        self.finish(None)
        return self._whole.failed(self._askings, error)

    def _file(self, evaluation: str) -> AppendOnlyFile:
        if evaluation not in self._files:
            entry = next(
                asking.evaluation
                for asking in self._askings
                if asking.evaluation.name == evaluation
            )
            self._files[evaluation] = self._session.run.open_results(self._askings[0].arm, entry)
        return self._files[evaluation]


if __name__ == "__main__":
    from kaarel_bet.cli import run_script

    sys.exit(run_script("test"))
