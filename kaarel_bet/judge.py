"""Step 4: asks the judges about the answers.

uv run python kaarel_bet/judge.py [--run-dir DIR] ...

Without the run's directory `judgements` this is done anew, and no arm is asked again.
"""

import sys

from kaarel_bet.session import Session
from kaarel_bet.test import ask_missing, test


def judge(session: Session) -> None:
    """Does nothing for what is judged, nor where nothing is to be."""
    test(session)
    run = session.run
    if session.experiment.judges and not run.has_judgements:
        with run.writing():
            if not run.has_judgements:  # another process was not faster
                run.write_judgements(session.experiment.judgements(run.answers()))
    ask_missing(session, "judge", run.judgements())


if __name__ == "__main__":
    from kaarel_bet.cli import main

    sys.exit(main(["judge", *sys.argv[1:]]))
