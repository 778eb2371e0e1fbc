"""The worker that computes one batch's loss and gradients with TRL's DPOTrainer; no import of kaarel-bet.

The job has the model, an adapter's directory (rank, scale and weights; the reference is the model
without it), JSONL of texts with `prompt`, `chosen` and `rejected`, and beta. It answers the loss, TRL's own
metrics and the tokens; the gradients are written as safetensors.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from common import records
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main() -> None:
    job = json.loads(sys.argv[1])
    rows = records(job["data"])
    lora = LoraConfig.from_pretrained(job["adapter"])
    lora.inference_mode = False
    with tempfile.TemporaryDirectory() as directory:
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
            args=DPOConfig(
                output_dir=directory,
                beta=job["beta"],
                per_device_train_batch_size=len(rows),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                max_length=None,
                report_to=[],
                dataloader_pin_memory=False,
            ),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            train_dataset=Dataset.from_list(rows),
            peft_config=lora,
        )
        model = trainer.model
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
        weights = load_file(Path(job["adapter"], "adapter_model.safetensors"))
        set_peft_model_state_dict(model, weights)
        tokenized = list(trainer.train_dataset)
        batch = trainer.data_collator(tokenized)
        model.train()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
    found = {n: p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}
    save_file(found, job["gradients"])
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    tokens = [
        [row["prompt_ids"] + row[f"{which}_ids"] for which in ("chosen", "rejected")]
        for row in tokenized
    ]
    print(json.dumps({"loss": loss.item(), "tokens": tokens, **metrics}))


if __name__ == "__main__":
    main()
