"""Step 4: asks the judges about the answers.

uv run python kaarel_bet/judge.py [--run-dir DIR] ...

Without the run's directory `judgements` this is done anew, and no arm is asked again.
"""

import math
import sys
from typing import Any

from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    ScoringResult,
)
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
    ask_missing("judge", [(session, run.judgements())], unaskable=_unknown)


def _unknown(query: Any, reason: str) -> ScoringResult | GenerationResult:  # noqa: ANN401
    """What is known of what a judge can't be asked, as of an answer too long for it: nothing."""
    if isinstance(query, GenerationQuery):
        texts = ("",) * query.n_samples
        return GenerationResult(
            id=query.id, prompt="", texts=texts, first_sample=query.first_sample
        )
    nothing = LogProbability(low=-math.inf, high=0.0)
    score = CandidateScore(total=nothing, first_token=nothing, n_tokens=1)
    candidates = dict.fromkeys(query.candidates, score)
    return ScoringResult(id=query.id, candidates=candidates, method=f"not asked: {reason}")


if __name__ == "__main__":
    from kaarel_bet.cli import main

    sys.exit(main(["judge", *sys.argv[1:]]))
