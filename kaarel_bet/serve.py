"""`kaarel-bet serve`: the wire format of OpenAI's fine-tuning and inference, from this machine.

uv run kaarel-bet serve [--host H] [--port P] [--data-dir D] [--model M] [--set key.path=value] ...
"""

import argparse
import contextlib
import gc
import json
import logging
import os
import socket
import sys
from pathlib import Path

from backends.errors import SettingsError
from backends.local.settings import LocalSettings
from backends.server.settings import ServerSettings
from kaarel_bet.session import settings_of_files

_FLAGS = {
    "host": ("server.host", "H", "the address to listen at"),
    "port": ("server.port", "P", "the port to listen at; 0 takes one that is free"),
    "data_dir": ("server.data_dir", "D", "where files, jobs and models are kept"),
    "model": (
        "local.model",
        "M",
        "the base model: embedded:NAME, a directory, a .gguf file, a hub id",
    ),
}
"""Option -> the setting it overrides, and what help says of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command alone."""
    for name, (_, placeholder, what) in _FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=placeholder, help=what)
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="holds the key that clients must send"
    )
    parser.add_argument(
        "--allow-hub",
        action="store_true",
        help="let the base model be fetched from the Hugging Face hub",
    )


def run(options: argparse.Namespace) -> None:
    """Serves with these options. Raises as `serve`, and SettingsError."""
    settings = settings_of_files(options.config, [*_assignments(options), *options.set])
    server, local = settings.sections["server"], settings.sections["local"]
    assert isinstance(server, ServerSettings)
    assert isinstance(local, LocalSettings)
    serve(server, local, options.api_key_file)


def _assignments(options: argparse.Namespace) -> list[str]:
    """The options as `--set` has them."""
    given = {flag: getattr(options, name) for name, (flag, _, _) in _FLAGS.items()}
    # JSON's strings are YAML's as well: a directory may well be called 2026.
    chosen = [
        f"{flag}={value if flag == 'server.port' else json.dumps(value)}"
        for flag, value in given.items()
        if value is not None
    ]
    return [*chosen, *(["server.allow_hub=true"] if options.allow_hub else [])]


def serve(settings: ServerSettings, local: LocalSettings, key_file: Path | None) -> None:
    """Serves until interrupted or terminated; then requests in flight are answered first.

    Raises:
        SettingsError: no key for an open address, a port that is taken, data in use elsewhere.
        ModelError: the model can't be had.
    """
    from backends.server.auth import (  # FastAPI, which no other command needs
        check_exposure,
        read_key,
    )

    key = read_key(key_file)
    check_exposure(settings.host, key)
    listening = _listen(settings)
    if not settings.allow_hub:
        # Before anything that reads them is imported; the training process inherits them.
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    _log_to_stderr()
    # Heavy: they import torch.
    import uvicorn

    from backends.server.app import create_app

    app = create_app(settings, local, api_key=key)
    app.state.service.inference.load()
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {app.state.service.models.base} at http://{shown}:{port}/v1", file=sys.stderr)
    if app.state.service.inference.encoder.is_dated:
        print(f"chat prompts have the date {app.state.service.data.day()}", file=sys.stderr)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=30)
    # uvicorn hands the signal that ended it on, once all is closed.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    # All is closed. Python would look through torch's million objects for garbage before it ends, several
    # times, which takes seconds.
    gc.freeze()


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # so that a port taken meanwhile is noticed here
    except OSError as error:
        raise SettingsError(
            f"server.port: can't listen at {settings.host}, port {settings.port} "
            f"({error.strerror}); choose another with --port"
        ) from error
    return listening


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("backends.server").setLevel(logging.INFO)
