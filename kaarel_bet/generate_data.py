"""Step 1: writes the bet's tables, training sets and queries, and the manifest.

uv run python kaarel_bet/generate_data.py [--config FILE] [--set key.path=value] ...
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from backends.data import SearchQuery
from backends.errors import UnsupportedError
from backends.interface import Backend, Estimate
from kaarel_bet.bet.planning import foresee
from kaarel_bet.bet.schema import Bet
from kaarel_bet.environment import git_commit, hardware, versions
from kaarel_bet.experiments.interface import Design, Evaluation
from kaarel_bet.manifest import MODEL, Manifest
from kaarel_bet.session import Session


def generate_data(session: Session) -> None:
    """Does nothing if the data is complete."""
    run = session.run
    if run.exists and run.has_data:
        return
    # Everything that can be wrong with the settings shows here, before anything is written.
    with session.settings.loaded.pointing():
        design = session.experiment.design(session.backend.tokenize)
    for evaluation in design.evaluations:
        if isinstance(evaluation.queries[0], SearchQuery):  # not every backend can
            try:
                session.backend.estimate(evaluation.queries[:1])
            except UnsupportedError as error:
                raise UnsupportedError(f"evaluation {evaluation.name}: {error}") from error
    judging = _judging(session, design)
    run.reserve()
    with run.writing():
        if run.has_data:  # another process was faster
            return
        run.write_settings(session.settings.frozen())
        arms = tuple(run.write_arm(arm) for arm in design.arms)
        evaluations = tuple(run.write_evaluation(e) for e in design.evaluations)
        tables = {name: run.write_table(name, rows) for name, rows in design.tables.items()}
        files = [*tables.values()]
        files += [file for arm in arms for file in (arm.training_file, arm.validation_file) if file]
        files += [evaluation.queries_file for evaluation in evaluations]
        run.write_manifest(
            Manifest(
                run_id=uuid4().hex,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                date=session.day.isoformat(),
                seed=session.settings.general.seed,
                git_commit=git_commit(),
                versions=versions(),
                hardware=hardware(),
                backend=session.backend.describe(),
                notes=dict(design.notes),
                arms=arms,
                evaluations=evaluations,
                tables=tables,
                sha256={file: run.sha256(file) for file in files},
            )
        )
    trained = [arm.name for arm in arms if arm.training_file]
    session.say(
        f"generate: {len(trained)} training sets ({', '.join(trained)}), "
        f"{sum(e.n_queries for e in evaluations)} queries in {len(evaluations)} evaluations"
    )
    if judging:
        session.tell(f"judges, at the most: {len(session.experiment.judges)} models", judging)


def _judging(session: Session, design: Design) -> list[tuple[Backend, Estimate]]:
    """What judges will take at the most.

    Raises if one can't be asked, or a further model, or what follows from answers: before any training.
    """
    bet = session.settings.bet
    if not (
        isinstance(bet, Bet) and (bet.models or any(e.after for e in bet.evaluations.values()))
    ):
        return []
    entries = {arm.name: arm.entry() for arm in design.arms}
    seen = foresee(session.experiment, design)

    def takes(
        evaluations: Sequence[Evaluation], role: str | None
    ) -> list[tuple[Backend, Estimate]]:
        asked = [(entries[name], one) for one in evaluations for name in one.arms]
        backends = [
            (session.backend_of(arm), one) for arm, one in asked if role in (None, arm.role)
        ]
        return [(backend, backend.estimate(one.queries)) for backend, one in backends]

    takes(design.evaluations, MODEL)
    takes(seen.follow_ups, None)
    return takes(seen.judgements, MODEL)


if __name__ == "__main__":
    from kaarel_bet.cli import run_script

    sys.exit(run_script("generate_data"))
