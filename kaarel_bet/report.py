"""Step 5: decides the claims and writes the report, on the terminal and as files.

uv run python kaarel_bet/report.py [--run-dir DIR] ...
"""

import sys

from rich.console import Console

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observations
from kaarel_bet.bet.report import further_sections
from kaarel_bet.claims import Verdicts
from kaarel_bet.experiments.interface import Answers
from kaarel_bet.judge import judge as ask_judges
from kaarel_bet.rendering.document import Document, training_curves, what_was_run
from kaarel_bet.rendering.terminal import print_report
from kaarel_bet.session import Session


def judged(session: Session, answers: Answers) -> Judge:
    """Who decides the bet's claims on what was answered."""
    experiment = session.experiment
    observations = Observations(experiment.observe(answers))
    seed = session.settings.general.seed
    return Judge(experiment.bet, experiment.vocabulary(), observations, answers.tables, seed)


def report(session: Session) -> None:
    """Prints the report; writes its files if they are not complete."""
    ask_judges(session)
    run, experiment = session.run, session.experiment
    answers = run.answers()
    judge = judged(session, answers)
    manifest = run.manifest()
    models = {arm.name: run.model(arm.name) for arm in manifest.arms if arm.training_file}
    document = Document(
        title=experiment.bet.name.replace("_", " ").capitalize(),
        question=experiment.bet.question,
        verdicts=judge.verdicts(),
        sections=(
            *experiment.sections(answers, judge),
            *further_sections(judge),
            *((tried.section,) if (tried := run.tried()) else ()),
            training_curves(manifest.arms, models),
            *what_was_run(manifest, models, session.settings.frozen(), run.data_files()),
        ),
        notes=run.notes(),
    )
    if not run.has_report:
        # matplotlib takes a second to import, which a finished run need not wait for.
        from kaarel_bet.rendering.files import render

        figures, markdown, html = render(document)
        verdicts = Verdicts(verdicts=tuple(document.verdicts))
        with run.writing():
            run.write_report(verdicts, figures, markdown, html, judge.observations.as_csv())
        session.say(f"report: {run.path / 'report.html'}")
    print_report(document, Console(emoji=False))


if __name__ == "__main__":
    from kaarel_bet.cli import run_script

    sys.exit(run_script("report"))
