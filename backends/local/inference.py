"""The model that is served: its tokenizer and encoder."""

from functools import cached_property
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.encoding import Encoder
from backends.local.models import context_length, load_tokenizer, locate
from backends.local.settings import LocalSettings


class Inference:
    """Encodes for the served model."""

    def __init__(self, settings: LocalSettings, *, max_adapters: int) -> None:
        self._settings = settings
        self._max_adapters = max_adapters

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return load_tokenizer(locate(self._settings.model))

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes for the model."""
        return Encoder(self.tokenizer, context_length(locate(self._settings.model)))

    def forget(self, adapter: Path) -> None:
        """Drops a deleted model's weights."""

    def close(self) -> None:
        """Ends all work."""
