"""The run directory: the only channel between steps, and the only code that knows its files.

Every file is written atomically by one step; scores are append-only. See the README for the layout.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from backends.atomic import sweep, write_text
from backends.data import (
    EXAMPLES,
    GenerationQuery,
    GenerationResult,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TunedModel,
    join_parts,
)
from backends.errors import DataError, RunDirectoryError, SettingsError
from backends.jsonl import AppendOnlyFile, lines, read_jsonl
from backends.schema import Strict, explain
from kaarel_bet.claims import Verdicts
from kaarel_bet.content import Section, Table
from kaarel_bet.experiments.interface import Answers, Arm, Asked, Evaluation, Row, of_replicate
from kaarel_bet.manifest import ArmEntry, EvaluationEntry, FollowUps, Kind, Manifest
from kaarel_bet.yaml_files import read

Record = TypeVar("Record", bound=BaseModel)

_QUERIES: dict[Kind, TypeAdapter[Any]] = {
    "scoring": TypeAdapter(ScoringQuery),
    "generation": TypeAdapter(GenerationQuery),
    "search": TypeAdapter(SearchQuery),
}
_RESULTS: dict[Kind, TypeAdapter[Any]] = {
    "scoring": TypeAdapter(ScoringResult),
    "generation": TypeAdapter(GenerationResult),
    "search": TypeAdapter(SearchResult),
}
_ROW = TypeAdapter(dict[str, Any])


class _Answered(BaseModel):
    """What is read of a result where only that it is there counts: some have thousands of numbers."""

    id: str


_ANSWERED: dict[Kind, TypeAdapter[Any]] = {
    "scoring": TypeAdapter(_Answered),
    "generation": _RESULTS["generation"],
    "search": TypeAdapter(_Answered),
}

JUDGEMENTS = "judgements"
"""The directory of what judges are asked and answer: without it they are asked again, and nobody else."""


class Note(Strict):
    """What somebody has to say about a run; it stands beside the verdict, never in its place."""

    written: str
    text: str


class Tried(Strict):
    """The settings that were tried before a run's, of which its are the best."""

    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def section(self) -> Section:
        """As the report shows them."""
        return Section(
            "Settings that were tried", self.text, [Table(self.columns, self.rows, compact=True)]
        )


_NOTE = TypeAdapter(Note)


class ModelRecord(TunedModel):
    """A finished training of a run; those of versions that kept no identity can't be taken for another's.

    `sha256` has the files of a model inside the run; `trained_in` names the run that trained it, None for
    the run itself.
    """

    identity: str | None = None
    sha256: dict[str, str] = Field(default_factory=dict)
    trained_in: str | None = None


class RunDirectory:
    """One run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_named_by_us = False

    # --- which run -----------------------------------------------------------------------------

    @classmethod
    def latest(
        cls, results_dir: Path, frozen: Mapping[str, Any] | None = None
    ) -> "RunDirectory | None":
        """The latest run there, with these settings or with any."""
        runs = [cls(path.parent) for path in results_dir.glob("*/config.yaml")]
        fitting = [
            run
            for run in runs
            if (run.has_data if frozen is None else run._was_started_with(frozen))
        ]
        return max(fitting, key=lambda run: (run._started(), run.path.name), default=None)

    def _was_started_with(self, frozen: Mapping[str, Any]) -> bool:
        try:
            theirs = self.frozen_settings()
        except RunDirectoryError:
            return False  # not ours to judge: somebody else's directory among the results
        # Of a file that is gone it can't be told whether it was another; the run has what was in it.
        there = {file: sha256 for file, sha256 in frozen.get("files", {}).items() if sha256}
        files = {"files": theirs.get("files", {}) | there} if "files" in frozen else {}
        return theirs == {**frozen, **files}

    def _started(self) -> float:
        """When, in seconds since 1970: by the manifest, which keeps it where files are copied."""
        try:
            return datetime.fromisoformat(self.manifest().created).timestamp()
        except ValueError:  # no manifest yet, or a broken one
            return (self.path / "config.yaml").stat().st_mtime

    @classmethod
    def new(cls, results_dir: Path, experiment: str) -> "RunDirectory":
        """A run that is not there yet, named after the time and the experiment."""
        path = results_dir / f"{datetime.now():%Y%m%d-%H%M%S}-{experiment}"
        new = cls(_numbered(path, Path.exists))
        new._is_named_by_us = True
        return new

    def reserve(self) -> None:
        """Makes a new run's directory this process's own; another may have named it in the same second."""
        if self._is_named_by_us:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path = _numbered(self.path, _is_taken)
            self._is_named_by_us = False

    @property
    def exists(self) -> bool:
        """Whether the run has its settings; any other content is refused.

        Raises:
            RunDirectoryError: the path is a file, or a directory with something else in it.
        """
        if (self.path / "config.yaml").exists():
            return True
        # Hidden files are the lock and what a killed write leaves.
        foreign = self.path.is_file() or any(self.path.glob("[!.]*"))
        if foreign:
            raise RunDirectoryError(f"{self.path}: not a run directory (it has no config.yaml)")
        return False

    def frozen_settings(self) -> dict[str, Any]:
        """The settings that the run was started with.

        Raises:
            RunDirectoryError: they can't be read.
        """
        path = self.path / "config.yaml"
        try:
            if found := read(path).data:
                return found
        except SettingsError as error:
            raise RunDirectoryError(f"{error}") from error
        raise RunDirectoryError(f"{path}: no settings in it")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the run for one writer; what killed ones left half-written is gone.

        Raises:
            RunDirectoryError: another process is writing to it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                sweep(self.path)
                yield
        except Timeout as error:
            raise RunDirectoryError(f"{self.path}: in use by another process") from error

    # --- data ----------------------------------------------------------------------------------

    @property
    def has_data(self) -> bool:
        """Whether the data is complete."""
        return self._manifest_path.exists()

    def write_settings(self, frozen: Mapping[str, Any]) -> None:
        """Freezes the settings; those that are there stay as they are.

        Raises:
            RunDirectoryError: there are others.
        """
        if self.exists:
            if self.frozen_settings() != frozen:
                raise RunDirectoryError(f"{self.path}: made with other settings")
            return
        text = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        # Arms, claims ... stay in the file's order; the library's annotation knows None alone.
        yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
        yaml.dump(dict(frozen), text)
        write_text(self.path / "config.yaml", text.getvalue())

    def write_arm(self, arm: Arm) -> ArmEntry:
        """Writes an arm's data files."""
        training = arm.training
        if training is None:
            return arm.entry()
        file = self._write_records(f"data/train-{arm.name}.jsonl", training.examples)
        if not training.validation:
            return arm.entry(file)
        further = self._write_records(f"data/validation-{arm.name}.jsonl", training.validation)
        return arm.entry(file, further)

    def write_evaluation(self, evaluation: Evaluation, folder: str = "data") -> EvaluationEntry:
        """Writes an evaluation's queries."""
        file = f"{folder}/queries-{evaluation.name}.jsonl"
        return evaluation.entry(self._write_records(file, evaluation.queries))

    def write_table(self, name: str, rows: Sequence[Row]) -> str:
        """Writes the rows that prompts were made of."""
        file = f"data/tables/{name}.jsonl"
        text = (json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
        write_text(self.path / file, "".join(text))
        return file

    def write_manifest(self, manifest: Manifest) -> None:
        """Declares the data complete."""
        write_text(self._manifest_path, manifest.model_dump_json(indent=2) + "\n")

    def manifest(self) -> Manifest:
        """What the run is made of.

        Raises:
            RunDirectoryError: the manifest can't be read.
        """
        return _read(self._manifest_path, Manifest)

    def has_follow_ups(self, round_: int) -> bool:
        """Whether the experiment was asked for its follow-ups for the so-many-th time (from 1)."""
        return self._follow_ups_path(round_).exists()

    def write_follow_ups(self, evaluations: Sequence[Evaluation], round_: int) -> None:
        """Writes the evaluations that follow from the answers, or that there are none."""
        self._write_further(evaluations, self._follow_ups_path(round_), "data")

    def follow_ups(self) -> tuple[EvaluationEntry, ...]:
        """The evaluations that follow from the answers, none before they are known.

        Raises:
            RunDirectoryError: their file can't be read.
        """
        return tuple(entry for written in self._follow_ups() for entry in written.evaluations)

    def _follow_ups(self) -> list[FollowUps]:
        rounds = takewhile(self.has_follow_ups, count(1))
        return [_read(self._follow_ups_path(one), FollowUps) for one in rounds]

    @property
    def has_judgements(self) -> bool:
        """Whether it is settled what judges are asked."""
        return self._judgements_path.exists()

    def write_judgements(self, evaluations: Sequence[Evaluation]) -> None:
        """Writes what judges are asked, or that there is nothing; a report of before is none any more."""
        (self.path / "verdict.json").unlink(missing_ok=True)
        self._write_further(evaluations, self._judgements_path, JUDGEMENTS)

    def judgements(self) -> tuple[EvaluationEntry, ...]:
        """What judges are asked. Raises RunDirectoryError."""
        return _read(self._judgements_path, FollowUps).evaluations if self.has_judgements else ()

    def _write_further(self, evaluations: Sequence[Evaluation], path: Path, folder: str) -> None:
        known = {entry.name for entry in self.evaluations()}
        clashing = known & {evaluation.name for evaluation in evaluations}
        assert not clashing, f"evaluations named like others: {clashing}"
        entries = tuple(self.write_evaluation(evaluation, folder) for evaluation in evaluations)
        sha256 = {entry.queries_file: self.sha256(entry.queries_file) for entry in entries}
        written = FollowUps(evaluations=entries, sha256=sha256)
        write_text(path, written.model_dump_json(indent=2) + "\n")

    def evaluations(self) -> tuple[EvaluationEntry, ...]:
        """Those of the manifest and those that follow from its answers; none of judges."""
        return self.manifest().evaluations + self.follow_ups()

    def data_files(self) -> dict[str, str]:
        """All data files, with the SHA-256 that each had when it was written."""
        further = self._follow_ups()
        further += [_read(self._judgements_path, FollowUps)] if self.has_judgements else []
        found = dict(self.manifest().sha256)
        for one in further:
            found |= one.sha256
        return found

    def sha256(self, file: str) -> str:
        """The SHA-256 of one of the run's files, in hexadecimal."""
        return hashlib.sha256((self.path / file).read_bytes()).hexdigest()

    def training_file(self, arm: ArmEntry) -> Path:
        """The arm's training file, checked to be as it was generated. Raises DataError."""
        assert arm.training_file is not None
        return self._unchanged(arm.training_file, EXAMPLES[arm.method])

    def validation_file(self, arm: ArmEntry) -> Path | None:
        """The arm's validation file, likewise."""
        if arm.validation_file is None:
            return None
        return self._unchanged(arm.validation_file, EXAMPLES[arm.method])

    def queries(self, evaluation: EvaluationEntry) -> list[Any]:
        """An evaluation's queries, by its kind. Raises DataError."""
        kind = _QUERIES[evaluation.kind]
        return read_jsonl(self._unchanged(evaluation.queries_file, kind), kind)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Table -> its rows. Raises DataError."""
        files = self.manifest().tables
        found = {name: self._unchanged(file, _ROW) for name, file in files.items()}
        # One without rows is a table all the same.
        return {name: read_jsonl(file, _ROW, unfinished_ok=True) for name, file in found.items()}

    def _unchanged(self, file: str, kind: TypeAdapter[Any]) -> Path:
        path = self.path / file
        if not path.exists():
            raise DataError(f"{path}: missing; start a new run")
        if self.sha256(file) != self.data_files()[file]:
            read_jsonl(path, kind)  # if a line is broken, this names it
            raise DataError(f"{path}: changed since it was generated; start a new run")
        return path

    def _write_records(self, file: str, records: Sequence[BaseModel]) -> str:
        write_text(self.path / file, lines(records))
        return file

    # --- models --------------------------------------------------------------------------------

    def model_path(self, arm: str) -> Path:
        """Where a backend may put the files of an arm's model."""
        return (self.path / "models" / arm).absolute()

    def has_model(self, arm: str) -> bool:
        """Whether the arm's training is finished."""
        return self._model_record(arm).exists()

    def write_model(
        self,
        arm: str,
        tuned: TunedModel,
        identity: str | None = None,
        trained_in: str | None = None,
    ) -> None:
        """Declares the arm's training finished; a model inside the run is noted relative to it."""
        path = Path(tuned.model)
        own = {"identity": identity, "trained_in": trained_in}
        if path.is_relative_to(self.path.absolute()):
            relative = path.relative_to(self.path.absolute()).as_posix()
            files = sorted(filter(Path.is_file, path.rglob("*")))
            sha256 = {
                f.relative_to(path).as_posix(): self.sha256(
                    f"{f.relative_to(self.path.absolute())}"
                )
                for f in files
            }
            own |= {"model": relative, "sha256": sha256}
        record = ModelRecord.model_validate(dict(tuned) | own)
        write_text(self._model_record(arm), record.model_dump_json(indent=2) + "\n")

    def model(self, arm: str) -> ModelRecord:
        """The arm's model, its place given as it is now. Raises RunDirectoryError."""
        tuned = _read(self._model_record(arm), ModelRecord)
        inside = self.path / tuned.model
        if inside.exists():
            tuned = tuned.model_copy(update={"model": str(inside.absolute())})
        return tuned

    def _model_record(self, arm: str) -> Path:
        return self.path / "models" / f"{arm}.json"

    # --- scores --------------------------------------------------------------------------------

    def open_results(self, arm: str, evaluation: EvaluationEntry) -> AppendOnlyFile:
        """The file that the results of an arm and evaluation are appended to."""
        return AppendOnlyFile(self._results_path(arm, evaluation))

    def results(self, arm: str, evaluation: EvaluationEntry) -> dict[str, Any]:
        """Query id -> result, of what there is so far. Raises DataError for a malformed line."""
        path = self._results_path(arm, evaluation)
        if not path.exists() or path.stat().st_size == 0:
            return {}
        results = read_jsonl(path, _RESULTS[evaluation.kind], unfinished_ok=True)
        if evaluation.kind == "generation":
            return join_parts(results)
        return {result.id: result for result in results}

    def unanswered(self, arm: str, evaluation: EvaluationEntry) -> list[Any]:
        """The queries that have no result yet; of some samples, those that are missing."""
        path = self._results_path(arm, evaluation)
        there = path.exists() and path.stat().st_size
        kind = _ANSWERED[evaluation.kind]
        known: dict[str, set[int]] = {}
        for result in read_jsonl(path, kind, unfinished_ok=True) if there else ():
            samples = result.samples if isinstance(result, GenerationResult) else ()
            known.setdefault(result.id, set()).update(samples)
        return [
            left
            for query in self.queries(evaluation)
            for left in _missing(query, known.get(query.id))
        ]

    def answers(self) -> Answers:
        """Everything that was found, in the order of the queries, and the tables."""
        arms = {arm.name: arm for arm in self.manifest().arms}
        asked = []
        for evaluation in self.evaluations():
            queries = self.queries(evaluation)
            for name in evaluation.arms:
                results = self.results(name, evaluation)
                found = tuple(results[query.id] for query in queries)
                asked.append(Asked(arms[name], evaluation, found, queries))
        judged = {one.name: self.results(one.arms[0], one) for one in self.judgements()}
        return Answers(tuple(asked), self.tables(), judged)

    def results_directory(self, arm: str, evaluation: EvaluationEntry) -> Path:
        """Where an arm's results are, or a judge's."""
        folder = JUDGEMENTS if evaluation.queries_file.startswith(f"{JUDGEMENTS}/") else "scores"
        return self.path / folder / arm

    def _results_path(self, arm: str, evaluation: EvaluationEntry) -> Path:
        return self.results_directory(arm, evaluation) / f"{evaluation.name}.jsonl"

    # --- report --------------------------------------------------------------------------------

    @property
    def has_report(self) -> bool:
        """Whether the report is complete."""
        return all((self.path / f).exists() for f in ("verdict.json", "report.md", "report.html"))

    def write_report(
        self,
        verdicts: Verdicts,
        figures: Mapping[str, str],
        markdown: str,
        html: str,
        observations_csv: str,
    ) -> None:
        """Writes the report's files; figures are name -> SVG."""
        for name, svg in figures.items():
            write_text(self.path / "figures" / f"{name}.svg", svg)
        write_text(self.path / "observations.csv", observations_csv)
        write_text(self.path / "report.md", markdown)
        write_text(self.path / "report.html", html)
        write_text(self.path / "verdict.json", verdicts.model_dump_json(indent=2) + "\n")

    def notes(self) -> list[Note]:
        """What was said about the run. Raises DataError."""
        if not self._notes_path.exists() or self._notes_path.stat().st_size == 0:
            return []
        return read_jsonl(self._notes_path, _NOTE, unfinished_ok=True)

    def add_note(self, text: str) -> None:
        """Writes a note down; a report without it is none any more."""
        (self.path / "verdict.json").unlink(missing_ok=True)
        with AppendOnlyFile(self._notes_path) as file:
            file.append([Note(written=datetime.now(UTC).isoformat(timespec="seconds"), text=text)])

    def write_tried(self, tried: Tried) -> None:
        """Writes down what else was tried before this run."""
        write_text(self.path / "tried.json", tried.model_dump_json(indent=2) + "\n")

    def tried(self) -> Tried | None:
        """What else was tried before this run, if it is a sweep's. Raises RunDirectoryError."""
        path = self.path / "tried.json"
        return _read(path, Tried) if path.exists() else None

    @property
    def _notes_path(self) -> Path:
        return self.path / "notes.jsonl"

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def _follow_ups_path(self, round_: int) -> Path:
        return self.path / "data" / f"{of_replicate('follow_ups', round_)}.json"

    @property
    def _judgements_path(self) -> Path:
        return self.path / JUDGEMENTS / "judgements.json"


def _numbered(path: Path, is_taken: Callable[[Path], bool]) -> Path:
    names = chain([path.name], (f"{path.name}-{n:02}" for n in count(2)))
    return next(p for name in names if not is_taken(p := path.with_name(name)))


def _is_taken(path: Path) -> bool:
    """Whether somebody else has the directory; if not, it is there and ours now."""
    try:
        path.mkdir()
    except FileExistsError:
        return True
    return False


def _read(path: Path, kind: type[Record]) -> Record:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunDirectoryError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise RunDirectoryError(f"{path}: {explain(error)}") from error


def _missing(query: Any, known: Container[int] | None) -> list[Any]:  # noqa: ANN401 - of any kind
    """A query without result, or a query for each stretch of samples without one."""
    if known is None:
        return [query]
    if not isinstance(query, GenerationQuery):
        return []
    missing = (sample for sample in query.samples if sample not in known)
    stretches = itertools.groupby(enumerate(missing), key=lambda both: both[1] - both[0])
    parts = [[sample for _, sample in stretch] for _, stretch in stretches]
    return [query.part(range(part[0], part[-1] + 1)) for part in parts]
