"""The worker that scores with lm-evaluation-harness's `hf` model; see ../jobs.py."""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

from common import DEVICE, answer, records
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def main() -> None:
    job = json.loads(sys.argv[1])
    pairs = records(job["pairs"])
    model = HFLM(
        pretrained=job["model"],
        dtype=job["dtype"],
        device=DEVICE,
        batch_size=job["batch_size"],
    )
    requests = [
        Instance(
            request_type="loglikelihood",
            doc={},
            arguments=(pair["context"], pair["continuation"]),
            idx=index,
        )
        for index, pair in enumerate(pairs)
    ]
    model.loglikelihood(requests[:2], disable_tqdm=True)
    started = time.monotonic()
    results = model.loglikelihood(requests, disable_tqdm=True)
    seconds = time.monotonic() - started
    answer(seconds, len({pair["id"] for pair in pairs}), [value for value, _ in results])


if __name__ == "__main__":
    main()
