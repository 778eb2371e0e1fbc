"""Many adapters over one base model in memory."""

from collections import OrderedDict
from pathlib import Path
from typing import cast

from peft import LoraModel, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from backends.errors import ModelError
from backends.local.adapters import load_adapter
from backends.local.fused_lora import fuse_lora


class AdapterCache:
    """A base model and the adapters used last, one of which at most is active."""

    def __init__(self, base: PreTrainedModel, limit: int) -> None:
        self.model = base
        """What runs whichever is active."""
        self._limit = limit
        self._wrapped: PeftModel | None = None
        # Directory -> PEFT's name for it, the one used longest ago first.
        self._loaded: OrderedDict[Path, str] = OrderedDict()
        self._active: Path | None = None
        self._n_loaded = 0

    def activate(self, adapter: Path | None) -> None:
        """Makes the model that of an adapter's directory, or the base model.

        Raises:
            ModelError: as `load_adapter`; the base model is active then.
        """
        if adapter is not None:
            if adapter not in self._loaded:
                self._load(adapter)
            self._loaded.move_to_end(adapter)
        if adapter != self._active:
            self._switch(adapter)

    def forget(self, adapter: Path) -> None:
        """Drops an adapter, whose directory may hold something else from now on."""
        if adapter not in self._loaded:
            return
        if len(self._loaded) == 1:
            self._unwrap()
            return
        if adapter == self._active:
            self._switch(next(other for other in self._loaded if other != adapter))
        assert self._wrapped is not None
        self._wrapped.delete_adapter(self._loaded.pop(adapter))

    def _load(self, adapter: Path) -> None:
        while len(self._loaded) >= self._limit:
            self.forget(next(iter(self._loaded)))
        self._n_loaded += 1
        name = f"adapter{self._n_loaded}"
        try:
            self._wrapped = load_adapter(
                self._wrapped or self.model, adapter, trainable=False, name=name
            )
        except ModelError:
            self._unwrap()  # whatever PEFT had done until then
            raise
        self._loaded[adapter] = name

    def _switch(self, adapter: Path | None) -> None:
        assert self._wrapped is not None
        layers = cast("LoraModel", self._wrapped.base_model)
        if adapter is None:
            layers.disable_adapter_layers()
        else:
            layers.enable_adapter_layers()
            self._wrapped.set_adapter(self._loaded[adapter], inference_mode=True)
            fuse_lora(self._wrapped)
        self._active = adapter

    def _unwrap(self) -> None:
        """The base model as it was before the first adapter."""
        model = cast("nn.Module", self.model)
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                model.set_submodule(name, module.get_base_layer())
            elif isinstance(module, AuxiliaryTrainingWrapper):
                model.set_submodule(name, module.original_module)
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        self._wrapped, self._active = None, None
        self._loaded.clear()
