"""The peers' commands: a script of peers/ in an environment with the packages that the peer needs."""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARED_VERSIONS = ("torch", "transformers", "peft")


def peer_command(script: str, packages: tuple[str, ...] | None) -> list[str]:
    """Runs it in this environment where `packages` is None, else in one of its own.

    That one has the same versions of torch, transformers and peft as this one.
    """
    path = str(HERE / "peers" / script)
    return [sys.executable, path] if packages is None else [*environment(packages), path]


def environment(packages: tuple[str, ...]) -> list[str]:
    """The words that run a command in an environment with these packages."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED_VERSIONS]
    words = [word for pin in (*pins, *packages) for word in ("--with", pin)]
    uv = str(HERE.parent / "scripts" / "uv")
    return [uv, "run", "--quiet", "--no-project", "--isolated", "--system-certs", *words]
