"""Runs lm-evaluation-harness on a task file of its own: `lm_eval_task.py JOB`.

JOB is JSON: model (directory), data (JSONL file), shots (number of rows of `examples`, another such file,
that go before each prompt), delimiter (between a prompt and its class). Prints one line of JSON a row: the
arguments and log-likelihoods of its classes, acc and acc_norm; and last the means.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval
from lm_eval.api.task import ConfigurableTask

# As in lm_eval/tasks/inverse_scaling/_inverse_scaling_mc_yaml.
FORM = {
    "output_type": "multiple_choice",
    "test_split": "train",
    "doc_to_text": "prompt",
    "doc_to_choice": "classes",
    "doc_to_target": "answer_index",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm")
    ],
}


def main() -> None:
    job = json.loads(sys.argv[1])
    task = ConfigurableTask(
        config=FORM
        | {
            "task": "ours",
            "target_delimiter": job["delimiter"],
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"train": job["data"], "examples": job["examples"]}},
            "fewshot_split": "examples",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": job["shots"],
        }
    )
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": job["model"], "dtype": "float32"},
        tasks=[task],
        num_fewshot=job["shots"],
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        log_samples=True,
    )
    for sample in sorted(found["samples"]["ours"], key=lambda sample: sample["doc_id"]):
        row = {
            "arguments": [list(value) for value in _arguments(sample)],
            "log_likelihoods": [response[0] for response in sample["filtered_resps"]],
            "acc": sample["acc"],
            "acc_norm": sample["acc_norm"],
        }
        print(json.dumps(row))
    results = found["results"]["ours"]
    print(
        json.dumps(
            {
                name: results[f"{name},none"]
                for name in ("acc", "acc_norm", "acc_stderr")
                if f"{name},none" in results
            }
        )
    )


def _arguments(sample: dict) -> list:
    arguments = sample["arguments"]
    return list(arguments.values()) if isinstance(arguments, dict) else arguments


if __name__ == "__main__":
    main()
