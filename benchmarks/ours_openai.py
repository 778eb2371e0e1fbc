"""The worker that scores with kaarel-bet's OpenAI backend: `python benchmarks/ours_openai.py JOB`."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from jobs import Measured, ServiceJob
from loopback import serving
from memory import peak_bytes
from pydantic import TypeAdapter

from backends.data import ScoringQuery
from backends.jsonl import read_jsonl
from backends.openai_api.asking import Asker
from backends.openai_api.connection import Connection
from backends.openai_api.scoring.scoring import Scoring
from backends.openai_api.settings import OpenAISettings


def _encode(text: str) -> tuple[int, ...]:
    """A token a word, as no table has to be downloaded then."""
    return tuple(hash(word) for word in text.replace("\n", "\n ").split(" ") if word)


def score(job: ServiceJob) -> Measured:
    queries = read_jsonl(Path(job.data), TypeAdapter(ScoringQuery))
    os.environ["OPENAI_API_KEY"] = "any"
    scores = []
    with serving() as base_url:
        settings = OpenAISettings.model_validate(
            {
                "base_url": base_url,
                "model": job.model,
                "scoring": {"method": "top", "concurrency": job.concurrency},
            }
        )
        connection = Connection(settings)
        asker = Asker(connection, settings.scoring.concurrency)
        scoring = Scoring(asker, settings.scoring, _encode)
        list(connection.iterate(scoring.score(job.model, queries[:1])))
        started = time.monotonic()
        # As the flow does, every result is let go once it is written down.
        for result in connection.iterate(scoring.score(job.model, queries)):
            scores.append(result.candidates["country"].total.low)
        seconds = time.monotonic() - started
    return Measured(seconds, len(scores), peak_bytes(), log_likelihoods=scores)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(score(ServiceJob(**json.loads(sys.argv[1]))))))
