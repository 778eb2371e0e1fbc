"""Azure OpenAI in Microsoft Foundry, by its v1 API.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning and .../fine-tuning-deploy: jobs are
OpenAI's; what a job makes (gpt-4.1-mini-2025-04-14.ft-...) is asked by the name of a deployment, which the
portal or its management API creates, with another key than this one. Not documented: whether the v1 API
keeps the metadata of jobs.
"""

from backends.openai_api.providers import Provider

PROFILE = Provider(
    deploying="deploy it in the Foundry portal (Models, Deploy), which is billed by the hour",
    takes_texts=False,
    takes_prompt_loss=False,
)
