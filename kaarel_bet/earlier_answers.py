"""Answers that other runs have been given: found by who was asked what, and taken over.

So a second claim about the same answers, another prompt for a judge, or one arm more asks nobody twice.
A run may be written to, moved or deleted at any moment while another one looks.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.atomic import write_text
from backends.data import n_answers
from backends.errors import KaarelBetError
from kaarel_bet.run_dir import RunDirectory


def note_who_answers(directory: Path, identity: str) -> None:
    """Writes down whose answers a directory of a run has; where they are several models', that."""
    if not _is_of(directory, identity):
        are_others = any(path.stat().st_size for path in directory.glob("*.jsonl"))
        write_text(directory / _WHO, f"{_SEVERAL if are_others else identity}\n")


def earlier_answers(
    run: RunDirectory, identity: str, queries: Sequence[Any]
) -> Iterator[tuple[str, Any]]:
    """The run beside this one, and its result, for queries that it has put to such a model."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for query in queries:
        wanted[_content(query)].append(query.id)
    for other, directory in _directories(run, identity):
        if not wanted:
            return
        with suppress(OSError, KaarelBetError):
            for content, result in _answered(other, directory, {*wanted}):
                for query_id in wanted.pop(content, ()):
                    yield other.path.name, result.model_copy(update={"id": query_id})


_WHO = "answered_by"
_SEVERAL = "several"


def _directories(run: RunDirectory, identity: str) -> Iterator[tuple[RunDirectory, Path]]:
    """Where there are answers of such a model, latest run first."""
    here = run.path.absolute()
    for path in sorted(here.parent.glob(f"*/*/*/{_WHO}"), reverse=True):
        other = path.parents[2]
        if other != here and _is_of(path.parent, identity):
            yield RunDirectory(other), path.parent


def _is_of(directory: Path, identity: str) -> bool:
    with suppress(OSError):
        return (directory / _WHO).read_text(encoding="utf-8").strip() == identity
    return False


def _answered(
    run: RunDirectory, directory: Path, wanted: Container[str]
) -> Iterator[tuple[str, Any]]:
    """Content of a query and its result. Raises KaarelBetError for a run that can't be read."""
    for entry in (*run.evaluations(), *run.judgements()):
        if (
            directory.name not in entry.arms
            or run.results_directory(directory.name, entry) != directory
        ):
            continue
        contents = [(query, _content(query)) for query in run.queries(entry)]
        if any(content in wanted for _, content in contents):
            results = run.results(directory.name, entry)
            for query, content in contents:
                result = results.get(query.id)
                if result is not None and n_answers(result) == n_answers(query):
                    yield content, result


def _content(query: Any) -> str:  # noqa: ANN401 - of any kind
    told = query.model_dump(mode="json", exclude={"id"})
    text = json.dumps([type(query).__name__, told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
