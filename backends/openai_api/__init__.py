"""The OpenAI backend: fine-tuning and scoring over OpenAI's wire format, hosted or self-hosted."""
