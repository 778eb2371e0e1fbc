"""The peers' commands: a script of peers/ in an environment with the packages that the peer needs."""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_SHARED_VERSIONS = ("torch", "transformers", "peft")


def peer_command(script: str, packages: Sequence[str] | None) -> list[str]:
    """Runs it in this environment where `packages` is None, else in one of its own.

    That one has the same versions of torch, transformers and peft as this one.
    """
    path = str(_HERE / "peers" / script)
    return [sys.executable, path] if packages is None else [*environment(packages), path]


def environment(packages: Sequence[str], alike: Sequence[str] = _SHARED_VERSIONS) -> list[str]:
    """The words that run a command in an environment with these packages, and `alike` ones as here."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in alike]
    words = [word for pin in (*pins, *packages) for word in ("--with", pin)]
    uv = str(_HERE.parent / "scripts" / "uv")
    return [uv, "run", "--quiet", "--no-project", "--isolated", "--system-certs", *words]
