"""Which models are served, and which directory a name stands for: the store decides, never a path."""

import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from openai.types import Model

from backends.errors import SettingsError
from backends.local.settings import LocalSettings
from backends.server.data_dir import DataDirectory
from backends.server.errors import ServiceError, no_such_model
from backends.server.identifiers import now
from backends.server.records import ModelRecord, Records
from backends.server.settings import ServerSettings

_SELF = "self"
_TUNED = "ft:"
_CHECKPOINT = re.compile(r":ckpt-step-\d+$")


class Models:
    """The base model, those tuned here, and the other names (aliases) that the settings give them.

    An alias is a name or a pattern with `*`, `?` or `[...]`; of several that fit, a name comes first, then
    the pattern that stands first. No pattern stands for a name that begins with `ft:`, so that a tuned
    model that was deleted is not silently another.
    """

    def __init__(
        self, records: Records, data: DataDirectory, local: LocalSettings, server: ServerSettings
    ) -> None:
        """Raises SettingsError for an alias that stands for nothing here, or never would."""
        self._records = records.models
        self._data = data
        self._settings_name = local.model
        self._organization = server.organization
        self._aliases = server.aliases
        self._started = now()
        self.base = served_name(local.model)
        self._check_aliases(server.aliases)

    def base_models(self) -> list[Model]:
        """The base model and each alias that is a name, as the wire shows them."""
        names = [self.base, *(alias for alias in self._aliases if not _is_pattern(alias))]
        return [self._named(name) for name in names]

    def tuned_models(self) -> list[Model]:
        """Those tuned here, oldest first."""
        return [record.model for record in self._records.all()]

    def canonical(self, name: str) -> str:
        """The name that answers give a model: the one that it was asked by, but for the settings' own.

        Raises:
            ServiceError: it is not served (404).
        """
        if name in (self.base, self._settings_name):
            return self.base
        if self._records.get(name) is None and self._alias(name) is None:
            raise no_such_model(name)
        return name

    def adapter(self, name: str) -> str | None:
        """The name of the model's adapter, None for the base. Raises ServiceError (404)."""
        if self.canonical(name) == self.base:
            return None
        record = self._records.get(name)
        if record is not None:
            return record.adapter
        target = self._alias(name)
        return None if target is None or target == _SELF else self._record(target).adapter

    def adapter_path(self, name: str) -> Path | None:
        """The directory of the model's adapter, None for the base. Raises ServiceError (404)."""
        adapter = self.adapter(name)
        return None if adapter is None else self._data.adapter(adapter)

    def model(self, name: str) -> Model:
        """The model as the wire shows it. Raises ServiceError (404)."""
        name = self.canonical(name)
        record = self._records.get(name)
        return self._named(name) if record is None else record.model

    def add_tuned(self, job_id: str, tuned_from: str, suffix: str) -> Model:
        """Names the model of a finished job: `ft:<base>:<organisation>:<suffix>:<id>`.

        The base has the name that the job gave it, or that the tuned model has in which the job began.
        """
        short = job_id.removeprefix("ftjob-")[:8]
        base = tuned_from
        if base.startswith(_TUNED):
            whole = _CHECKPOINT.sub("", base)
            base = whole.removeprefix(_TUNED).rsplit(":", 3)[0]
        # The parts of a name are told apart by their colons.
        suffix = suffix.replace(":", "-")
        name = f"{_TUNED}{base}:{self._organization}:{suffix}:{short}"
        return self._add(name, adapter=job_id)

    def add_checkpoint(self, model: str, step: int, adapter: str) -> str:
        """Names what a tuned model was after an earlier epoch: `<model>:ckpt-step-<n>`."""
        return self._add(f"{model}:ckpt-step-{step}", adapter).id

    def _add(self, name: str, adapter: str) -> Model:
        model = Model(id=name, object="model", created=now(), owned_by=self._organization)
        self._records.add(name, ModelRecord(model=model, adapter=adapter))
        return model

    def delete(self, name: str) -> Path:
        """Deletes a tuned model; returns the directory that its adapter was in.

        Raises:
            ServiceError: it is not served (404), or is the base model or an alias (403).
        """
        if self._records.get(self.canonical(name)) is None:
            message = (
                "Neither the base model nor an alias can be deleted; only models tuned here can."
            )
            raise ServiceError(403, message, param="model")
        path = self._data.adapter(self._record(name).adapter)
        self._records.remove(name)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _named(self, name: str) -> Model:
        return Model(id=name, object="model", created=self._started, owned_by="system")

    def _alias(self, name: str) -> str | None:
        """What an alias stands for: `self` or the name of a tuned model."""
        if name in self._aliases or name.startswith(_TUNED):
            return self._aliases.get(name)
        fitting = (alias for alias in self._aliases if fnmatchcase(name, alias))
        return self._aliases.get(next(fitting, ""))

    def _check_aliases(self, aliases: Mapping[str, str]) -> None:
        for alias, target in aliases.items():
            where = f"server.aliases.{alias}"
            if alias in (self.base, self._settings_name):
                raise SettingsError(f"{where}: it is the base model's own name; take it out")
            if target != _SELF and self._records.get(target) is None:
                raise SettingsError(
                    f"{where}: no model '{target}' was tuned here; give self (the base model), or the "
                    "whole name of a model that was tuned here (ft:...)"
                )

    def _record(self, name: str) -> ModelRecord:
        record = self._records.get(name)
        if record is None:
            raise no_such_model(name)
        return record


def _is_pattern(alias: str) -> bool:
    return any(character in alias for character in "*?[")


def served_name(model: str) -> str:
    """What clients call the model of the settings: of a path they see the last part alone."""
    if model.startswith("embedded:"):
        return model.removeprefix("embedded:")
    path = Path(model).expanduser()
    return path.stem if path.is_file() else path.name if path.is_dir() else model
