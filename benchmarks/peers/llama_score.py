"""The worker that scores with llama.cpp and its prompt cache, from the GGUF file; see ../jobs.py.

llama.cpp says the log-probability of a token that it generates, as the model has it before any bias: so
each token of a continuation is asked for by a bias that leaves it no choice. What a prompt shares with the
one before is not computed again.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import xllamacpp
from common import answer, records
from transformers import AutoTokenizer

ALWAYS = 1e4


def score(server: xllamacpp.Server, context: list[int], continuation: list[int]) -> float:
    total = 0.0
    for place, token in enumerate(continuation):
        request = {
            "prompt": context + continuation[:place],
            "n_predict": 1,
            "n_probs": 1,
            "cache_prompt": True,
            "logit_bias": [[token, ALWAYS]],
        }
        (said,) = server.handle_completions(request)["choices"][0]["logprobs"]["content"]
        if said["id"] != token:
            raise RuntimeError(f"token {token} was asked for, {said['id']} came")
        total += said["logprob"]
    return total


def main() -> None:
    job = json.loads(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    lines = records(job["pairs"])
    pairs = []
    for line in lines:
        context = tokenizer(line["context"], add_special_tokens=False)["input_ids"]
        whole = tokenizer(line["context"] + line["continuation"], add_special_tokens=False)
        pairs.append((context, whole["input_ids"][len(context) :]))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = job["gguf"]
    parameters.n_parallel = 1
    parameters.n_ctx = 2048
    server = xllamacpp.Server(parameters)
    for context, continuation in pairs[:2]:
        score(server, context, continuation)
    # In order, as one would ask: neighbours share the most.
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    started = time.monotonic()
    scores = {i: score(server, *pairs[i]) for i in order}
    seconds = time.monotonic() - started
    answer(seconds, len({line["id"] for line in lines}), [scores[i] for i in range(len(pairs))])


if __name__ == "__main__":
    main()
