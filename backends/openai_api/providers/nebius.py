"""Nebius Token Factory.

https://docs.tokenfactory.nebius.com/api-reference/fine-tuning/create-a-fine-tuning-job: `hyperparameters`
has LoRA (`lora`, without which all weights are trained, `lora_r`, `lora_alpha`, `lora_dropout`) and an
absolute `learning_rate`; no "auto", no metadata, and a job names no model. A third party's page
(https://skills.sh/arindam200/nebius-skills/nebius-finetune) gives the absolute rate as
`learning_rate_multiplier`, which the reference does not have. A checkpoint becomes a model by
.../api-reference/models/create-a-custom-model.
"""

from backends.openai_api.providers import Provider

PROFILE = Provider(
    address="https://api.tokenfactory.nebius.com/v1",
    deploying=(
        "create a custom model of its last checkpoint (POST /v0/models with `source`: "
        "<job>:<checkpoint>), which answers its name"
    ),
    names_models=False,
    rates=("learning_rate",),
    lora={"rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout"},
    always={"lora": True},
    takes_auto=False,
    takes_metadata=False,
    takes_prompt_loss=False,
    takes_preferences=False,
    in_method=False,
)
