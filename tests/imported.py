"""What commands import on their way; see commands.py."""

import transformers.models.llama.modeling_llama  # noqa: F401

import kaarel_bet.cli  # noqa: F401
