"""Step 4: decides the claims and writes the report, on the terminal and as files.

uv run python kaarel_bet/report.py [--run-dir DIR] ...
"""

import sys

from rich.console import Console

from kaarel_bet.claims import Verdicts
from kaarel_bet.rendering.document import Document, training_curves, what_was_run
from kaarel_bet.rendering.terminal import print_findings
from kaarel_bet.session import Session
from kaarel_bet.test import test


def report(session: Session) -> None:
    """Prints the findings; writes the report's files if they are not complete."""
    test(session)
    run = session.run
    findings = session.experiment.findings(run.scores())
    if not run.has_report:
        # matplotlib takes a second to import, which a finished run need not wait for.
        from kaarel_bet.rendering.files import render

        manifest = run.manifest()
        models = {arm.name: run.model(arm.name) for arm in manifest.arms if arm.training_file}
        document = Document(
            title=session.settings.general.experiment.replace("_", " ").capitalize(),
            findings=findings,
            sections=(
                *findings.sections,
                training_curves(models),
                *what_was_run(manifest, models, session.settings.frozen(), run.data_files()),
            ),
        )
        figures, markdown, html = render(document)
        with run.writing():
            run.write_report(Verdicts(verdicts=tuple(findings.verdicts)), figures, markdown, html)
        session.say(f"report: {run.path / 'report.html'}")
    print_findings(findings, Console(emoji=False))


if __name__ == "__main__":
    from kaarel_bet.cli import main

    sys.exit(main(["report", *sys.argv[1:]]))
