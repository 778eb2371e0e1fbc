"""inspect_ai's provider for OpenAI: a task with a scorer and log-probabilities, and one with a schema.

By chats, which it chooses for this model, or by the responses API where the second argument says so.
"""

import json
import sys
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from inspect_ai.util import json_schema
from pydantic import BaseModel

BY = {"responses_api": True} if sys.argv[2:] == ["responses"] else {}


class Colour(BaseModel):
    name: str


def run(**config: Any) -> Any:
    samples = [
        Sample(input=f"The capital of {c}?", target=t)
        for c, t in (("France", "Paris"), ("Peru", "Lima"))
    ]
    task = Task(
        dataset=samples,
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(temperature=0, **config),
    )
    (log,) = evaluate(
        task, model="openai/gpt-4.1-2025-04-14", model_args=BY, display="none", log_dir=sys.argv[1]
    )
    assert log.status == "success", log.error
    return log


plain = run(max_tokens=20, logprobs=True, top_logprobs=3)
held = run(
    max_tokens=60, response_schema=ResponseSchema(name="colour", json_schema=json_schema(Colour))
)
first = plain.samples[0].output.choices[0]
print(
    json.dumps(
        {
            "completions": [sample.output.completion for sample in plain.samples],
            "scores": [sample.scores["includes"].value for sample in plain.samples],
            "logprobs": [len(token.top_logprobs or []) for token in first.logprobs.content],
            "held": [json.loads(sample.output.completion) for sample in held.samples],
        }
    )
)
