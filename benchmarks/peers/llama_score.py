"""The worker that scores with llama.cpp and its prompt cache, from the GGUF file; see ../jobs.py.

llama.cpp says the log-probability of a token that it generates, as the model has it before any bias: so
each token of a continuation is asked for by a bias that leaves it no choice. What a prompt shares with the
one before is not computed again.
"""

import json
import resource
import sys
import time
from pathlib import Path

import xllamacpp
from tokenizers import Tokenizer

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
    # Neither transformers nor torch, whose memory is not llama.cpp's.
    tokenizer = Tokenizer.from_file(str(Path(job["model"], "tokenizer.json")))
    lines = [json.loads(line) for line in Path(job["pairs"]).read_text("utf-8").splitlines()]
    pairs = []
    for line in lines:
        context = tokenizer.encode(line["context"], add_special_tokens=False).ids
        whole = tokenizer.encode(line["context"] + line["continuation"], add_special_tokens=False)
        pairs.append((context, whole.ids[len(context) :]))
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
    measured = {
        "seconds": time.monotonic() - started,
        "count": len({line["id"] for line in lines}),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "log_likelihoods": [scores[i] for i in range(len(pairs))],
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
