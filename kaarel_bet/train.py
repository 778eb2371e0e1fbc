"""Step 2: fine-tunes every arm that is trained.

uv run python kaarel_bet/train.py [--backend NAME] [--set key.path=value] ...
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from typing_extensions import override

from backends.data import TunedModel
from backends.errors import KaarelBetError
from backends.interface import Backend, Estimate, FineTuneJob, Progress
from kaarel_bet.earlier_models import take_over
from kaarel_bet.executors.carrying_out import Work, carry_out
from kaarel_bet.executors.tasks import Task
from kaarel_bet.generate_data import generate_data
from kaarel_bet.manifest import ArmEntry
from kaarel_bet.progress import Report
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session


def train(*sessions: Session) -> None:
    """Does nothing for arms whose training is finished; a killed one is taken up where it stopped.

    Nor is anything trained that another run beside this one has trained already, nor twice for several
    sessions, whose trainings are done together.
    """
    for session in sessions:
        generate_data(session)
    behind = [session for session in sessions if _untrained(session.run)]
    with ExitStack() as held:
        for session in behind:
            held.enter_context(session.run.writing())
            _take_over(session)  # another process may have trained in between, too
        if behind := [session for session in behind if _untrained(session.run)]:
            _train(behind)


def _take_over(session: Session) -> None:
    run = session.run
    for arm in _in_order(_untrained(run)):
        if arm.starts_from is None or run.has_model(arm.starts_from):
            _Training(session, arm).is_taken_over()


def _train(sessions: Sequence[Session]) -> None:
    # All of it is checked before any of it is started, also whether others can be asked afterwards.
    estimates: list[Estimate] = []
    works: list[_Training] = []
    for session in sessions:
        for arm in session.run.manifest().arms:
            session.backend_of(arm)
        missing = _in_order(_untrained(session.run))
        estimates += [session.backend_of(arm).estimate(_job(session.run, arm)) for arm in missing]
        of = f"{session.run.path.name}/" if len(sessions) > 1 else ""
        trainings = {arm.name: _Training(session, arm, of) for arm in missing}
        for arm in missing:
            trainings[arm.name].after = trainings.get(arm.starts_from or "")
        works += trainings.values()
    session = sessions[0]
    at_once = session.backend.side_by_side(estimates)
    executor = session.executor_of(session.backend, at_once)
    at_once = min(len(works), executor.most_at_once) if executor.is_here else 1
    beside = f", {at_once} at once" if at_once > 1 else ""
    in_all = Estimate.of_all(estimates, at_once)
    session.agree_to(f"train: {len(works)} fine-tunes{beside}", [(session.backend, in_all)])
    carry_out("train", works, executor, session.console, session.say)


class _Training(Work):
    """One arm's, which may begin when the model that it starts from is there."""

    def __init__(self, session: Session, arm: ArmEntry, of: str = "") -> None:
        self.title = f"train {of}{arm.name}"
        self.after: Work | None = None
        self._session, self._arm = session, arm
        self._identity: str | None = None

    def is_taken_over(self) -> bool:
        """Whether another run had the model, which is then this one's."""
        backend, job = self._now()
        return self._had(backend, backend.identity(job))

    @override
    def prepare(self, report: Report) -> Task | None:
        backend, job = self._now()
        self._identity = backend.identity(job)
        # Of what it starts from, or of another session's, it may be new.
        may_be_had = self._arm.starts_from or self._session.executor_settings is not None
        if may_be_had and self._had(backend, self._identity):
            return None
        return Task(backend, job, self._identity, report=in_words(report, self._session.say))

    @override
    def finish(self, tuned: TunedModel | None) -> None:
        assert tuned is not None
        assert self._identity is not None
        self._session.run.write_model(self._arm.name, tuned, self._identity)
        seconds, loss = tuned.seconds, tuned.last_loss
        self._session.say(f"{self.title}: done in {seconds:.0f} s, last loss {loss}")

    @override
    def failed(self, error: Exception) -> Exception:
        if not isinstance(error, KaarelBetError):
            return error
        named = type(error)(f"{self.title}: {error}")
        named.__cause__ = error
        return named

    def _had(self, backend: Backend, identity: str) -> bool:
        trained_in = take_over(self._session.run, self._arm.name, identity, backend)
        if trained_in is not None:
            self._session.say(f"{self.title}: as trained in {trained_in}")
        return trained_in is not None

    def _now(self) -> tuple[Backend, FineTuneJob]:
        """Once what it starts from is there."""
        job = _job(self._session.run, self._arm, continuing=True)
        return self._session.backend_of(self._arm), job


def _untrained(run: RunDirectory) -> list[ArmEntry]:
    arms = run.manifest().arms
    return [arm for arm in arms if arm.training_file and not run.has_model(arm.name)]


def _job(run: RunDirectory, arm: ArmEntry, *, continuing: bool = False) -> FineTuneJob:
    """The arm as a job; `continuing` once the arm that it starts from is trained."""
    assert arm.loss_on is not None
    starts_from = run.model(arm.starts_from).model if continuing and arm.starts_from else None
    manifest = run.manifest()
    return FineTuneJob(
        run_id=manifest.run_id,
        name=arm.name,
        training_file=run.training_file(arm),
        validation_file=run.validation_file(arm),
        loss_on=arm.loss_on,
        seed=manifest.seed + arm.seed,
        starts_from=starts_from,
        output=run.model_path(arm.name),
        method=arm.method,
    )


def _in_order(arms: list[ArmEntry]) -> list[ArmEntry]:
    """Every arm after the one it starts from."""
    waiting = {arm.name: arm for arm in arms}
    ordered: list[ArmEntry] = []
    while waiting:
        ready = [arm for arm in waiting.values() if arm.starts_from not in waiting]
        assert ready, "arms start from each other in a circle"
        ordered += ready
        for arm in ready:
            del waiting[arm.name]
    return ordered


def in_words(report: Report, say: Callable[[str], None]) -> Callable[[Progress], None]:
    """Puts a fine-tune's progress into words; its speed is that since the first report."""
    started: float | None = None

    def show(now: Progress) -> None:
        nonlocal started
        if now.note is not None:
            say(now.note)
            return
        started = started or time.monotonic()  # not before: the model is loaded first
        details = [f"loss {now.loss:.4f}"] if now.loss is not None else []
        if now.tokens and now.loss is not None:
            speed = now.tokens / max(1e-9, time.monotonic() - started)
            details.append(f"{speed:.0f} tokens/s")
        report(now.done, now.total, ", ".join(details))

    return show


if __name__ == "__main__":
    from kaarel_bet.cli import run_script

    sys.exit(run_script("train"))
