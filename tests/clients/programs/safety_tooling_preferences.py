"""safety-tooling's steps of a DPO job: its upload, its request, its own way to wait."""

import asyncio
import json
import sys
from pathlib import Path

import openai
from safetytooling.apis.finetuning.openai.run import (
    OpenAIFTConfig,
    queue_finetune,
    upload_finetuning_file_to_openai,
)


async def main(path: str) -> None:
    config = OpenAIFTConfig(
        train_file=Path(path),
        model="gpt-4.1-mini-2025-04-14",
        n_epochs=1,
        batch_size=5,
        beta=0.1,
        method="dpo",
    )
    file = await upload_finetuning_file_to_openai(config.train_file)
    job = await queue_finetune(config, file, None)
    client = openai.AsyncClient()
    while job.status not in ("succeeded", "failed", "cancelled"):
        await asyncio.sleep(0.5)
        job = await client.fine_tuning.jobs.retrieve(job.id)
    results = [(await client.files.content(file)).text.splitlines()[0] for file in job.result_files]
    error = job.error and job.error.message
    print(
        json.dumps(
            {
                "status": job.status,
                "error": error,
                "method": job.method.type,
                "model": job.fine_tuned_model,
                "results": results,
            }
        )
    )


asyncio.run(main(sys.argv[1]))
