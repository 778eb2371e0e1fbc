"""The worker that trains with TRL's SFTTrainer and PEFT; see ../jobs.py. No import of kaarel-bet.

Set for speed where TRL leaves a choice: no gradient checkpointing (TRL's default has it), no logging,
weights in the dtype of the computation.
"""

import json
import os
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

from common import DEVICE, answer, records
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

WARM_UP_STEPS = 2


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.times.append(time.monotonic())


def rows(path: str) -> list[dict]:
    lines = records(path)
    if "messages" in lines[0]:
        return [{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in lines]
    return lines


def main() -> None:
    job = json.loads(sys.argv[1])
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        trainer = SFTTrainer(
            model=job["model"],
            args=SFTConfig(
                output_dir=directory,
                per_device_train_batch_size=job["batch_size"],
                num_train_epochs=job["epochs"],
                learning_rate=2e-3,
                bf16=job["dtype"] == "bfloat16",
                use_cpu=DEVICE == "cpu",
                completion_only_loss=job["loss_on"] == "completion",
                gradient_checkpointing=False,
                model_init_kwargs={"dtype": job["dtype"]},
                max_length=None,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            train_dataset=Dataset.from_list(rows(job["data"])),
            peft_config=LoraConfig(
                r=job["rank"],
                lora_alpha=job["alpha"],
                lora_dropout=job["dropout"],
                target_modules=job["target_modules"],
                task_type="CAUSAL_LM",
            ),
            callbacks=[clock],
        )
        trainer.train()
    timed = clock.times[WARM_UP_STEPS - 1 :]
    answer(timed[-1] - timed[0], (len(timed) - 1) * job["batch_size"])


if __name__ == "__main__":
    main()
