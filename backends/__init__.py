"""Backends: one interface, several ways to fine-tune and score; imports nothing from kaarel_bet.

A backend's heavy imports happen when it is opened, not before.
"""

import importlib
from datetime import date
from typing import TYPE_CHECKING

from backends.local.settings import LocalSettings
from backends.openai_api.settings import OpenAISettings
from backends.schema import Strict

if TYPE_CHECKING:
    from backends.interface import Backend

SETTINGS: dict[str, type[Strict]] = {"local": LocalSettings, "openai": OpenAISettings}
"""Backend name -> the type of its settings."""

_CLASSES = {
    "local": ("backends.local.backend", "LocalBackend"),
    "openai": ("backends.openai_api.backend", "OpenAIBackend"),
}


def open_backend(
    name: str, settings: Strict, day: date | None = None, *, elsewhere: bool = False
) -> "Backend":
    """The named backend with its settings (an instance of `SETTINGS[name]`).

    `day` is what chat templates that write the date are told where the settings don't say, None for today.
    `elsewhere`: it plans work that other machines do, which may have a device that this one lacks.
    """
    if day is not None and isinstance(settings, LocalSettings):
        settings = settings.of_day(day)
    module, cls = _CLASSES[name]
    how = {"elsewhere": elsewhere} if isinstance(settings, LocalSettings) else {}
    return getattr(importlib.import_module(module), cls)(settings, **how)
