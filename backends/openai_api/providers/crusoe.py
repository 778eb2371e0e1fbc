"""Crusoe Intelligence Foundry, Serverless Fine-Tuning.

https://docs.crusoecloud.com/serverless-fine-tuning/fine-tune-a-model, and the hyper-parameters of its
gateway as Crusoe's own example lists them: beside OpenAI's, `learning_rate` (absolute) and `lora_rank`,
`lora_alpha`, `lora_dropout`; batch sizes from a list. Base models go by opaque ids (`GET /v1/models`).
Training and inference are at two addresses; a tuned model (ftmodel-...) is asked by the name of a
deployment. Not documented: whether jobs take metadata and a seed.
"""

from backends.openai_api.providers import Provider

PROFILE = Provider(
    address="https://api.intelligence.crusoecloud.com/v1",
    asked_at="https://api.inference.crusoecloud.com/v1",
    deploying="deploy it with Self-Serve Deployments, which are billed by the hour",
    rates=("learning_rate_multiplier", "learning_rate"),
    lora={"rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout"},
    batch_sizes=(16, 32, 64, 128, 256),
    takes_auto=False,
    takes_metadata=False,
    takes_texts=False,
    takes_prompt_loss=False,
    takes_preferences=False,
)
