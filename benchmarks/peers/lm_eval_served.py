"""Scores with lm-evaluation-harness's `local-completions` at a server: `JOB BASE_URL`; see ../jobs.py.

A job without a model has the harness ask the server for tokens (`tokenizer_backend=remote`).
"""

import json
import os
import sys
import time

import requests

os.environ["HF_HUB_OFFLINE"] = "1"

from common import answer, records
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI


def main() -> None:
    job, base_url = json.loads(sys.argv[1]), sys.argv[2]
    pairs = records(job["pairs"])
    served = requests.get(f"{base_url}/models", timeout=60).json()["data"][0]["id"]
    model = LocalCompletionsAPI(
        base_url=f"{base_url}/completions",
        model=served,
        **({"tokenizer": job["model"]} if job["model"] else {"tokenizer_backend": "remote"}),
        batch_size=job["batch_size"],
    )
    instances = [
        Instance(
            request_type="loglikelihood",
            doc={},
            arguments=(pair["context"], pair["continuation"]),
            idx=index,
        )
        for index, pair in enumerate(pairs)
    ]
    model.loglikelihood(instances[:2], disable_tqdm=True)
    started = time.monotonic()
    results = model.loglikelihood(instances, disable_tqdm=True)
    seconds = time.monotonic() - started
    answer(seconds, len({pair["id"] for pair in pairs}), [value for value, _ in results])


if __name__ == "__main__":
    main()
