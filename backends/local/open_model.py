"""A base model loaded to be asked, with adapters, and what runs it."""

from pathlib import Path

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.adapter_cache import AdapterCache
from backends.local.decoding import Decoder, Vocabulary
from backends.local.detokenising import TokenBytes
from backends.local.device import choose_device, choose_dtype
from backends.local.engine import choose_engine
from backends.local.models import load_model
from backends.local.settings import LocalSettings


class OpenModel:
    """Scores with `engine` and answers with `decoder`, as the model that was activated last.

    Raises:
        ModelError: the base model can't be loaded.
    """

    def __init__(
        self,
        settings: LocalSettings,
        location: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_adapters: int,
    ) -> None:
        device = choose_device(settings.device)
        model = load_model(location, device, choose_dtype(settings.scoring.dtype, device))
        self.engine = choose_engine(model, settings.prefix_sharing)
        # Whether prefixes are shared is one question; keys and values are kept while answering anyway.
        decoding = self.engine if settings.prefix_sharing != "off" else choose_engine(model, "on")
        vocabulary = Vocabulary(TokenBytes(tokenizer), _ends(model, tokenizer))
        self.decoder = Decoder(model, decoding, vocabulary, settings.scoring.batch_tokens)
        self.max_adapters = max_adapters
        """How many stay in memory."""
        self._adapters = AdapterCache(model, max_adapters)

    def activate(self, adapter: Path | None) -> None:
        """Makes it the model of an adapter's directory, None for the base model. Raises ModelError."""
        self._adapters.activate(adapter)

    def forget(self, adapter: Path) -> None:
        """Drops an adapter that is no more."""
        self._adapters.forget(adapter)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = own if own is not None else tokenizer.eos_token_id
    return frozenset(
        end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)
    )
