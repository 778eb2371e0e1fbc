"""Environments of their own for peers, with the versions of torch and the like that are here."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_SHARED_VERSIONS = ("torch", "transformers", "peft")


def peer_command(script: str, packages: Sequence[str]) -> list[str]:
    """The start of the command that runs a script of peers/ with those packages."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _SHARED_VERSIONS]
    installed = [word for pin in (*pins, *packages) for word in ("--with", pin)]
    uv = str(_HERE.parent / "scripts" / "uv")
    path = str(_HERE / "peers" / script)
    return [uv, "run", "--quiet", "--no-project", "--isolated", "--system-certs", *installed, path]
