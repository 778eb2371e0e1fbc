"""The worker that scores with plain transformers, as one would write it; see ../jobs.py.

Sequences sorted by length, padded on the right in batches; all logits, then the continuation's.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from common import DEVICE, answer, records
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.inference_mode()
def score(model: object, pairs: list[tuple[list[int], list[int]]], batch_size: int) -> list[float]:
    order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
    scores = [0.0] * len(pairs)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(sum(map(len, pairs[i])) for i in batch)
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(inputs)
        for row, i in enumerate(batch):
            tokens = pairs[i][0] + pairs[i][1]
            inputs[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        logits = model(
            input_ids=inputs.to(model.device), attention_mask=mask.to(model.device)
        ).logits
        for row, i in enumerate(batch):
            context, continuation = pairs[i]
            at = slice(len(context) - 1, len(context) + len(continuation) - 1)
            log_probabilities = logits[row, at].float().log_softmax(-1)
            targets = torch.tensor(continuation, device=logits.device)
            scores[i] = log_probabilities.gather(1, targets[:, None]).sum().item()
    return scores


def main() -> None:
    job = json.loads(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    lines = records(job["pairs"])
    pairs = []
    for line in lines:
        context = tokenizer(line["context"], add_special_tokens=False)["input_ids"]
        whole = tokenizer(line["context"] + line["continuation"], add_special_tokens=False)
        pairs.append((context, whole["input_ids"][len(context) :]))
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"])
    model = model.to(DEVICE).eval()
    score(model, pairs[:2], 2)
    started = time.monotonic()
    scores = score(model, pairs, job["batch_size"])
    seconds = time.monotonic() - started
    answer(seconds, len({line["id"] for line in lines}), scores)


if __name__ == "__main__":
    main()
