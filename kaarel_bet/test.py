"""Step 3: asks every arm its queries and writes down the scores as they come.

uv run python kaarel_bet/test.py [--backend NAME] [--set key.path=value] ...
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backends.interface import Backend
from kaarel_bet.manifest import EvaluationEntry
from kaarel_bet.progress import progress
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.train import train


def test(session: Session) -> None:
    """Does nothing for queries that have their result."""
    train(session)
    run = session.run
    _ask_missing(session, "test", run.manifest().evaluations)
    _write_follow_ups(session)
    _ask_missing(session, "test, following up", run.follow_ups().evaluations)


def _write_follow_ups(session: Session) -> None:
    run = session.run
    if run.has_follow_ups:
        return
    with run.writing():
        if not run.has_follow_ups:  # another process was not faster
            run.write_follow_ups(session.experiment.follow_ups(run.scores()))


def _ask_missing(session: Session, what: str, evaluations: Sequence[EvaluationEntry]) -> None:
    run = session.run
    if not _unasked(run, evaluations):
        return
    with run.writing():
        missing = _unasked(run, evaluations)  # another process may have asked in between
        models = {asking.arm: _model(session, asking.arm) for asking in missing}
        estimates = [session.backend.estimate(a.queries, model=models[a.arm]) for a in missing]
        n_queries = sum(len(asking.queries) for asking in missing)
        session.agree_to(f"{what}: {n_queries} queries to {len(models)} models", estimates)
        for arm, model in models.items():
            _test_arm(session, model, [asking for asking in missing if asking.arm == arm])


@dataclass(frozen=True)
class Asking:
    """The queries of an evaluation that an arm has not answered yet."""

    arm: str
    evaluation: EvaluationEntry
    queries: list[Any]


def _unasked(run: RunDirectory, evaluations: Sequence[EvaluationEntry]) -> list[Asking]:
    askings = []
    for evaluation in evaluations:
        queries = run.queries(evaluation)
        for arm in evaluation.arms:
            answered = run.results(arm, evaluation)
            missing = [query for query in queries if query.id not in answered]
            if missing:
                askings.append(Asking(arm, evaluation, missing))
    return askings


def _model(session: Session, arm: str) -> str:
    """The arm's model as the backend takes it."""
    entry = next(entry for entry in session.run.manifest().arms if entry.name == arm)
    return session.run.model(arm).model if entry.training_file else session.backend.base_model


def _test_arm(session: Session, model: str, askings: list[Asking]) -> None:
    total = sum(len(asking.queries) for asking in askings)
    done = 0
    with progress(session.console, f"test {askings[0].arm}") as report:
        for asking in askings:
            with session.run.open_results(asking.arm, asking.evaluation) as file:
                for result in _ask(session.backend, model, asking):
                    file.append([result])
                    done += 1
                    report(done, total, asking.evaluation.name)


def _ask(backend: Backend, model: str, asking: Asking) -> Iterator[Any]:
    match asking.evaluation.kind:
        case "scoring":
            return backend.score(model, asking.queries)
        case "generation":
            return backend.generate(model, asking.queries)
        case "search":
            return backend.search(model, asking.queries)


if __name__ == "__main__":
    from kaarel_bet.cli import main

    sys.exit(main(["test", *sys.argv[1:]]))
