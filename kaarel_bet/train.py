"""Step 2: fine-tunes every arm that is trained.

uv run python kaarel_bet/train.py [--backend NAME] [--set key.path=value] ...
"""

import sys
import time
from collections.abc import Callable

from backends.interface import FineTuneJob, Progress
from kaarel_bet.earlier_models import take_over
from kaarel_bet.generate_data import generate_data
from kaarel_bet.manifest import ArmEntry
from kaarel_bet.progress import Report, progress
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
            _is_taken_over(session, arm)


def _is_taken_over(session: Session, arm: ArmEntry) -> bool:
    """Whether another run had the arm's model."""
    backend = session.backend_for(arm.settings, arm.arm)
    identity = backend.identity(_job(session.run, arm, continuing=True))
    trained_in = take_over(session.run, arm.name, identity, backend)
    if trained_in is not None:
        session.say(f"train {arm.name}: as trained in {trained_in}")
    return trained_in is not None


def _train(session: Session, missing: list[ArmEntry]) -> None:
    run = session.run
    # All of it is checked before any of it is started.
    estimates = [session.backend_for(a.settings, a.arm).estimate(_job(run, a)) for a in missing]
    session.agree_to(f"train: {len(missing)} fine-tunes", estimates)
    for arm in _in_order(missing):
        if arm.starts_from and _is_taken_over(session, arm):  # what it starts from may be new
            continue
        job = _job(run, arm, continuing=True)
        backend = session.backend_for(arm.settings, arm.arm)
        identity = backend.identity(job)
        with progress(session.console, f"train {arm.name}") as report:
            tuned = backend.fine_tune(job, in_words(report, session.say))
        run.write_model(arm.name, tuned, identity)
        session.say(f"train {arm.name}: done in {tuned.seconds:.0f} s, last loss {tuned.last_loss}")


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
    from kaarel_bet.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
