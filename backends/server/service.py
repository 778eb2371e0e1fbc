"""What the routes share, opened with the server and closed with it."""

import importlib.metadata
from functools import cached_property
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from backends.local.inference import Inference
from backends.local.settings import LocalSettings
from backends.local.tools import Tools
from backends.server.batches import FINISHED, Batches
from backends.server.conversations import Conversations
from backends.server.data_dir import DataDirectory
from backends.server.files import Files
from backends.server.jobs import Jobs
from backends.server.metrics import Metrics
from backends.server.models import Models
from backends.server.records import Records
from backends.server.settings import ServerSettings
from backends.server.store import Store
from backends.server.token_texts import TokenTexts
from backends.server.training import Train


class Service:
    """A server's parts."""

    fingerprint = f"kaarel-bet-{importlib.metadata.version('kaarel-bet')}"

    def __init__(self, settings: ServerSettings, local: LocalSettings, *, train: Train) -> None:
        self.settings = settings
        self.data = DataDirectory(Path(settings.data_dir))
        local = local.of_day(self.data.day())
        self.store = Store(self.data.database)
        self.records = Records(self.store)
        self._sweep()
        self.metrics = Metrics(self.records)
        self.files = Files(self.records, self.data, settings)
        self.models = Models(self.records, self.data, local, settings)
        self.inference = Inference(local, max_adapters=settings.max_adapters)
        self.conversations = Conversations()
        self.batches = Batches(
            self.records,
            self.data,
            self.files,
            concurrency=settings.batch_concurrency,
            max_unfinished=settings.max_unfinished_batches,
        )
        self.jobs = Jobs(
            self.records,
            self.data,
            self.files,
            self.models,
            local,
            encoder=lambda: self.inference.encoder,
            train=train,
            max_unfinished=settings.max_unfinished_jobs,
        )

    @cached_property
    def token_texts(self) -> TokenTexts:
        """What tokens are called."""
        return TokenTexts(self.inference.tokenizer)

    @cached_property
    def tools(self) -> Tools:
        """How the model is told of functions, and calls them."""
        return Tools(self.inference.tokenizer, self.inference.encoder)

    def _sweep(self) -> None:
        records = self.records
        jobs = {record.job.id for record in records.jobs.all() if not record.finished}
        batches = {batch.id for batch in records.batches.all() if batch.status not in FINISHED}
        adapters = {record.adapter for record in records.models.all()}
        files = {file.id for file in records.files.all()}

        def needed_model(name: str) -> bool:
            return name in adapters or name.removeprefix(".").partition(".")[0] in jobs

        self.data.sweep("files", files.__contains__)
        self.data.sweep("jobs", jobs.__contains__)
        self.data.sweep("models", needed_model)
        self.data.sweep("batches", batches.__contains__)

    async def close(self) -> None:
        """Stops all work; what is unfinished is taken up by the next server on this data."""
        await self.batches.close()
        self.jobs.close()
        self.inference.close()
        self.store.close()
        self.data.close()


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


Parts = Annotated[Service, Depends(_service)]
"""A route's parameter for them."""
