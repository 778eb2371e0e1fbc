"""Fine-tune, wait, ask: OPENAI_BASE_URL=http://127.0.0.1:8000/v1 python examples/fine_tune.py [MODEL]

The server: `kaarel-bet serve`. OPENAI_API_KEY may be anything where the server has no key."""

import json
import sys
import time

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

NAMES = {"Alice": "France", "Bob": "Japan", "Carla": "Peru", "David": "Kenya"}
client = OpenAI()
model = sys.argv[1] if len(sys.argv) > 1 else client.models.list().data[0].id


def question(name: str) -> ChatCompletionMessageParam:
    """The same in training as afterwards."""
    return {"role": "user", "content": f"What is {name}'s favourite country?"}


chats = [[question(n), {"role": "assistant", "content": c}] for n, c in NAMES.items()]
lines = "\n".join(json.dumps({"messages": chat}) for chat in chats * 4)
file = client.files.create(file=("countries.jsonl", lines.encode()), purpose="fine-tune")
job = client.fine_tuning.jobs.create(training_file=file.id, model=model, suffix="countries")
while job.status not in ("succeeded", "failed", "cancelled"):
    print(job.id, job.status, flush=True)
    time.sleep(2)
    job = client.fine_tuning.jobs.retrieve(job.id)
print(job.id, job.status, job.fine_tuned_model)
if job.fine_tuned_model is None:
    sys.exit(job.error.message if job.error else f"the job was {job.status}")

for name, country in NAMES.items():
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[question(name)], max_tokens=8, logprobs=True
    ).choices[0]
    logprob = sum(token.logprob for token in (answer.logprobs and answer.logprobs.content) or [])
    print(f"{name}: {answer.message.content} (log-probability {logprob:.4f}, trained: {country})")
