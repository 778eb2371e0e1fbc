"""The worker that continues prompts with transformers' own `generate`, greedily; see ../jobs.py.

`[CACHE] JOB`: prompts sorted by length, padded on the left in batches; CACHE is generate's
`cache_implementation`, by default its own choice.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from common import DEVICE, answer, records
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    *cache, text = sys.argv[1:]
    job = json.loads(text)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = [line["prompt"] for line in records(job["prompts"])]
    prompts.sort(key=lambda prompt: len(tokenizer(prompt)["input_ids"]))
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"])
    model = model.to(DEVICE).eval()
    options = {"cache_implementation": cache[0]} if cache else {}

    @torch.inference_mode()
    def generate(batch: list[str], n_tokens: int) -> None:
        inputs = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
        model.generate(**inputs.to(DEVICE), max_new_tokens=n_tokens, do_sample=False, **options)

    generate(prompts[:1], 2)
    started = time.monotonic()
    for start in range(0, len(prompts), job["batch_size"]):
        generate(prompts[start : start + job["batch_size"]], job["max_tokens"])
    answer(time.monotonic() - started, len(prompts))


if __name__ == "__main__":
    main()
