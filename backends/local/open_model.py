"""A base model loaded to be asked, with adapters, and what runs it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.local.adapter_cache import AdapterCache
from backends.local.decoding import Decoder, Vocabulary
from backends.local.detokenising import TokenBytes
from backends.local.device import choose_device, choose_dtype
from backends.local.engine import Engine, choose_answering_engine, choose_engine
from backends.local.placing import open_base
from backends.local.settings import DtypeName, LocalSettings


class OpenModel:
    """Scores with `engine` and answers with `decoder`, as the model that was activated last.

    Both are loaded when they are first asked for, once where they have the same dtype. Whatever asks
    for one may raise ModelError: the model, or the adapter that was activated, can't be had.
    """

    def __init__(
        self,
        settings: LocalSettings,
        location: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_adapters: int,
    ) -> None:
        self.batch_tokens = settings.scoring.batch_tokens
        self._settings = settings
        self._location = location
        self._tokenizer = tokenizer
        self.max_adapters = max_adapters
        """How many stay in memory."""
        self._active: Path | None = None
        self._loaded: dict[torch.dtype, _Loaded] = {}

    @property
    def engine(self) -> Engine:
        """What scores."""
        return self._in(self._settings.scoring.dtype).engine

    @property
    def scoring_model(self) -> PreTrainedModel:
        """What the engine runs."""
        return self._in(self._settings.scoring.dtype).adapters.model

    @cached_property
    def decoder(self) -> Decoder:
        """Made when it is first asked for: what it may say is for those who ask for answers."""
        loaded = self._in(self._settings.generation_dtype)
        model = loaded.adapters.model
        # Whether prefixes are shared is one question; keys and values are kept while answering anyway.
        shares = self._settings.prefix_sharing != "off"
        engine = loaded.engine if shares else choose_answering_engine(model)
        vocabulary = Vocabulary(TokenBytes(self._tokenizer), _ends(model, self._tokenizer))
        return Decoder(model, engine, vocabulary, self.batch_tokens)

    def activate(self, adapter: Path | None) -> None:
        """Makes it the model of an adapter's directory, None for the base model. Raises ModelError."""
        self._active = None  # unless all goes well
        for loaded in self._loaded.values():
            loaded.adapters.activate(adapter)
        self._active = adapter

    def forget(self, adapter: Path) -> None:
        """Drops an adapter that is no more."""
        for loaded in self._loaded.values():
            loaded.adapters.forget(adapter)

    def _in(self, name: DtypeName) -> "_Loaded":
        device = choose_device(self._settings.device)
        dtype = choose_dtype(name, device)
        if dtype not in self._loaded:
            model = open_base(self._settings, self._location, device, dtype)
            engine = choose_engine(model, self._settings.prefix_sharing)
            self._loaded[dtype] = _Loaded(engine, AdapterCache(model, self.max_adapters))
            self._loaded[dtype].adapters.activate(self._active)
        return self._loaded[dtype]


@dataclass(frozen=True)
class _Loaded:
    """The model in one dtype, with adapters of its own."""

    engine: Engine
    adapters: AdapterCache


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = own if own is not None else tokenizer.eos_token_id
    return frozenset(
        end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)
    )
