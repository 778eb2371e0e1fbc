"""Models that other runs have trained: found by what they are of, and taken over.

A run may be written to, moved or deleted at any moment while another one looks.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from backends import atomic
from backends.errors import RunDirectoryError
from backends.interface import Backend
from kaarel_bet.run_dir import ModelRecord, RunDirectory


def take_over(run: RunDirectory, arm: str, identity: str, backend: Backend) -> str | None:
    """Makes a model of that identity the arm's; returns the run that trained it, None if there is none.

    Files are copied, so that a run needs no other one.

    Raises:
        OSError: the copy can't be written.
        ServiceError: the service can't be asked for the model.
    """
    for other, record in _with_identity(run, identity):
        model = record.model
        if record.sha256:
            model = str(run.model_path(arm))
            if not _copied(Path(record.model), Path(model), record.sha256):
                continue
        if backend.has(model):
            trained_in = record.trained_in or other.path.name
            tuned = record.model_copy(update={"model": model})
            run.write_model(arm, tuned, identity, trained_in)
            return trained_in
    return None


def _with_identity(run: RunDirectory, identity: str) -> Iterator[tuple[RunDirectory, ModelRecord]]:
    """The finished models of the runs beside this one, latest run first."""
    here = run.path.absolute()
    for path in sorted(here.parent.glob("*/models/*.json"), reverse=True):
        other = RunDirectory(path.parents[1])
        try:
            # Most are of something else, and some are long.
            if other.path == here or identity.encode() not in path.read_bytes():
                continue
            record = other.model(path.stem)
        except (OSError, RunDirectoryError):
            continue
        if record.identity == identity:
            yield other, record


class _Unusable(Exception):  # noqa: N818 - not a failure
    """A model that is gone, or not what its run says."""


def _copied(source: Path, target: Path, sha256: Mapping[str, str]) -> bool:
    """Puts the files in the target's place, if they are all there and undamaged."""
    with suppress(_Unusable), atomic.directory(target) as working:
        names = {path.relative_to(source).as_posix() for path in _files(source)}
        if names != sha256.keys():
            raise _Unusable
        for name in names:
            try:
                content = (source / name).read_bytes()
            except OSError as error:
                raise _Unusable from error
            if hashlib.sha256(content).hexdigest() != sha256[name]:
                raise _Unusable
            (working / name).parent.mkdir(parents=True, exist_ok=True)
            (working / name).write_bytes(content)
        return True
    return False


def _files(directory: Path) -> Iterator[Path]:
    return filter(Path.is_file, directory.rglob("*"))
