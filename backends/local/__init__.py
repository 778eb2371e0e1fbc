"""LoRA fine-tuning and exact scoring on local hardware with transformers, peft and torch."""
