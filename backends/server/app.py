"""The application: routes, middleware and what runs behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from backends.local.settings import LocalSettings
from backends.server.auth import RequireKey
from backends.server.errors import install_error_handlers
from backends.server.limits import LimitBody
from backends.server.observation import Observe
from backends.server.origin import RefuseForeign
from backends.server.routes import (
    batches,
    chat,
    completions,
    files,
    health,
    jobs,
    models,
    refused,
    responses,
    tokenization,
)
from backends.server.service import Service
from backends.server.settings import ServerSettings
from backends.server.training import Train, train_in_own_process


def create_app(
    settings: ServerSettings,
    local: LocalSettings,
    *,
    api_key: str | None = None,
    train: Train = train_in_own_process,
) -> FastAPI:
    """The server as an ASGI application, its data opened; closing it is part of its shutdown.

    Raises:
        SettingsError: the data directory is in use or can't be read.
    """
    service = Service(settings, local, train=train)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.jobs.start()
        service.batches.start(app, api_key)
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="kaarel-bet", lifespan=running, docs_url=None, redoc_url=None)
    app.state.service = service
    install_error_handlers(app)
    for module in (
        health,
        files,
        jobs,
        models,
        chat,
        completions,
        responses,
        batches,
        tokenization,
        refused,
    ):
        app.include_router(module.router)
    # The last one added is the outermost.
    app.add_middleware(
        LimitBody, max_body_bytes=settings.max_body_bytes, max_file_bytes=settings.max_file_bytes
    )
    app.add_middleware(RequireKey, key=api_key)
    app.add_middleware(RefuseForeign, loopback_only=api_key is None)
    app.add_middleware(Observe, metrics=service.metrics)
    return app
