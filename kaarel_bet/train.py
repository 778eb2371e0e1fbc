"""Step 2: fine-tunes every arm that is trained.

uv run python kaarel_bet/train.py [--backend NAME] [--set key.path=value] ...
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from backends.data import TunedModel
from backends.errors import KaarelBetError
from backends.interface import Backend, Estimate, FineTuneJob, Place, Progress
from kaarel_bet.earlier_models import take_over
from kaarel_bet.generate_data import generate_data
from kaarel_bet.manifest import ArmEntry
from kaarel_bet.progress import Report, progress, progresses
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session


def train(session: Session) -> None:
    """Does nothing for arms whose training is finished; a killed one is taken up where it stopped.

    Nor is anything trained that another run beside this one has trained already.
    """
    generate_data(session)
    run = session.run
    if not _untrained(run):
        return
    with run.writing():
        _take_over(session)  # another process may have trained in between, too
        if missing := _untrained(run):
            _train(session, missing)


def _take_over(session: Session) -> None:
    run = session.run
    for arm in _in_order(_untrained(run)):
        if arm.starts_from is None or run.has_model(arm.starts_from):
            _Training.of(session, arm).is_taken_over()


def _train(session: Session, missing: list[ArmEntry]) -> None:
    # All of it is checked before any of it is started, also whether others can be asked afterwards.
    run = session.run
    for arm in run.manifest().arms:
        session.backend_of(arm)
    estimates = [session.backend_of(arm).estimate(_job(run, arm)) for arm in missing]
    at_once = session.backend.side_by_side(estimates)
    beside = f", {at_once} at once" if at_once > 1 else ""
    in_all = Estimate.of_all(estimates, at_once)
    session.agree_to(f"train: {len(missing)} fine-tunes{beside}", [(session.backend, in_all)])
    if at_once > 1:
        _train_side_by_side(session, missing, at_once)
        return
    for arm in _in_order(missing):
        training = _Training.of(session, arm)
        if arm.starts_from and training.is_taken_over():  # what it starts from may be new
            continue
        with progress(session.console, f"train {arm.name}") as report:
            tuned = training.run(report)
        training.finish(tuned)


def _train_side_by_side(session: Session, missing: list[ArmEntry], at_once: int) -> None:
    """So many at once; the first that fails stops the others, which keep what they have done."""
    waiting = _in_order(missing)
    running: dict[Future[TunedModel], tuple[_Training, Place]] = {}
    stop = threading.Event()
    free = [Place(number, at_once, stop) for number in range(at_once)]
    with progresses(session.console) as begin, ThreadPoolExecutor(at_once) as threads:
        try:
            while waiting or running:
                unfinished = {arm.name for arm in waiting}
                unfinished |= {training.arm.name for training, _ in running.values()}
                for arm in [a for a in waiting if a.starts_from not in unfinished][: len(free)]:
                    waiting.remove(arm)
                    training = _Training.of(session, arm)
                    if arm.starts_from and training.is_taken_over():
                        continue
                    place, report = free.pop(0), begin(f"train {arm.name}")
                    running[threads.submit(training.run, report, place)] = training, place
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    training, place = running.pop(future)
                    free.append(place)
                    training.finish(future.result())
        finally:
            stop.set()


@dataclass(frozen=True)
class _Training:
    """One arm's, which may begin: the model that it starts from is there."""

    session: Session
    arm: ArmEntry
    backend: Backend
    job: FineTuneJob
    identity: str

    @classmethod
    def of(cls, session: Session, arm: ArmEntry) -> "_Training":
        backend = session.backend_of(arm)
        job = _job(session.run, arm, continuing=True)
        return cls(session, arm, backend, job, backend.identity(job))

    def is_taken_over(self) -> bool:
        """Whether another run had the model, which is then this one's."""
        trained_in = take_over(self.session.run, self.arm.name, self.identity, self.backend)
        if trained_in is not None:
            self.session.say(f"train {self.arm.name}: as trained in {trained_in}")
        return trained_in is not None

    def run(self, report: Report, place: Place | None = None) -> TunedModel:
        """Trains. Raises as `Backend.fine_tune`, with the arm's name."""
        try:
            return self.backend.fine_tune(self.job, in_words(report, self.session.say), place)
        except KaarelBetError as error:
            raise type(error)(f"train {self.arm.name}: {error}") from error

    def finish(self, tuned: TunedModel) -> None:
        """Declares it finished."""
        self.session.run.write_model(self.arm.name, tuned, self.identity)
        self.session.say(
            f"train {self.arm.name}: done in {tuned.seconds:.0f} s, last loss {tuned.last_loss}"
        )


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
