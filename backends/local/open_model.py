"""A base model loaded to be asked, with adapters, and what runs it."""

from functools import cached_property
from pathlib import Path

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.adapter_cache import AdapterCache
from backends.local.decoding import Decoder, Vocabulary
from backends.local.detokenising import TokenBytes
from backends.local.device import choose_device, choose_dtype
from backends.local.engine import choose_answering_engine, choose_engine
from backends.local.models import load_model
from backends.local.settings import LocalSettings, PrefixSharing


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
        self.batch_tokens = settings.scoring.batch_tokens
        self._sharing: PrefixSharing = settings.prefix_sharing
        self._model = model
        self._tokenizer = tokenizer
        self.max_adapters = max_adapters
        """How many stay in memory."""
        self._adapters = AdapterCache(model, max_adapters)

    @cached_property
    def decoder(self) -> Decoder:
        """Made when it is first asked for: what it may say is for those who ask for answers."""
        # Whether prefixes are shared is one question; keys and values are kept while answering anyway.
        shares = self._sharing != "off"
        engine = self.engine if shares else choose_answering_engine(self._model)
        vocabulary = Vocabulary(TokenBytes(self._tokenizer), _ends(self._model, self._tokenizer))
        return Decoder(self._model, engine, vocabulary, self.batch_tokens)

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
