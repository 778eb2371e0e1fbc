"""Which models are served, and which directory a name stands for: the store decides, never a path."""

import shutil
from pathlib import Path

from openai.types import Model

from backends.local.settings import LocalSettings
from backends.server.data_dir import DataDirectory
from backends.server.errors import ServiceError, no_such_model
from backends.server.identifiers import now
from backends.server.records import ModelRecord, Records


class Models:
    """The base model and those tuned here."""

    def __init__(
        self, records: Records, data: DataDirectory, local: LocalSettings, organization: str
    ) -> None:
        self._records = records.models
        self._data = data
        self._settings_name = local.model
        self._organization = organization
        self._started = now()
        self.base = served_name(local.model)

    def base_model(self) -> Model:
        """The base model as the wire shows it."""
        return Model(id=self.base, object="model", created=self._started, owned_by="system")

    def tuned_models(self) -> list[Model]:
        """Those tuned here, oldest first."""
        return [record.model for record in self._records.all()]

    def canonical(self, name: str) -> str:
        """The name that answers give a model; the base's stands in the settings as well.

        Raises:
            ServiceError: it is not served (404).
        """
        if name in (self.base, self._settings_name):
            return self.base
        return self._record(name).model.id

    def adapter(self, name: str) -> str | None:
        """The name of the model's adapter, None for the base. Raises ServiceError (404)."""
        return None if self.canonical(name) == self.base else self._record(name).adapter

    def adapter_path(self, name: str) -> Path | None:
        """The directory of the model's adapter, None for the base. Raises ServiceError (404)."""
        adapter = self.adapter(name)
        return None if adapter is None else self._data.adapter(adapter)

    def model(self, name: str) -> Model:
        """The model as the wire shows it. Raises ServiceError (404)."""
        if self.canonical(name) == self.base:
            return self.base_model()
        return self._record(name).model

    def add_tuned(self, job_id: str, suffix: str) -> Model:
        """Names the model of a finished job: `ft:<base>:<organisation>:<suffix>:<id>`."""
        short = job_id.removeprefix("ftjob-")[:8]
        name = f"ft:{self.base}:{self._organization}:{suffix}:{short}"
        model = Model(id=name, object="model", created=now(), owned_by=self._organization)
        self._records.add(name, ModelRecord(model=model, adapter=job_id))
        return model

    def delete(self, name: str) -> Path:
        """Deletes a tuned model; returns the directory that its adapter was in.

        Raises:
            ServiceError: it is not served (404), or is the base model (403).
        """
        if self.canonical(name) == self.base:
            message = "The base model can't be deleted; only models tuned here can."
            raise ServiceError(403, message, param="model")
        path = self._data.adapter(self._record(name).adapter)
        self._records.remove(name)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _record(self, name: str) -> ModelRecord:
        record = self._records.get(name)
        if record is None:
            raise no_such_model(name)
        return record


def served_name(model: str) -> str:
    """What clients call the model of the settings: of a path they see the last part alone."""
    if model.startswith("embedded:"):
        return model.removeprefix("embedded:")
    path = Path(model).expanduser()
    return path.stem if path.is_file() else path.name if path.is_dir() else model
