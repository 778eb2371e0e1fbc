import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from transformers import AutoTokenizer

from backends.errors import ModelError
from backends.local import gguf_files
from backends.local.embedded import embedded_file
from backends.local.models import load_model, locate
from tests.models import EMBEDDED


def test_the_embedded_tokenizer_splits_digits_first() -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    # GPT-2's rule would join all but the last of the spaces, SmolLM's joins them all.
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a   12")) == ["a", "ĠĠĠ", "1", "2"]


def test_conversion_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = locate(EMBEDDED)

    def fail(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_files, "_convert", fail)
    assert locate(EMBEDDED) == first


def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_files.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"broken\.gguf: can't be read as a GGUF model"):
        locate(str(broken))
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


@pytest.fixture
def small_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded model's file with two of its thirty layers, which converts in a moment."""
    monkeypatch.setattr(gguf_files.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    reader = GGUFReader(embedded_file(EMBEDDED.removeprefix("embedded:")))
    writer = GGUFWriter(tmp_path / "small.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = 2 if name == "llama.block_count" else field.contents()
        writer.add_key_value(name, value, field.types[0], field.types[-1])
    for tensor in reader.tensors:
        layer = tensor.name.split(".")[1] if tensor.name.startswith("blk.") else "0"
        if int(layer) < 2:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "small.gguf"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def change(path: Path) -> None:
    path.write_bytes(b"\xff" * 20 + path.read_bytes()[20:])


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "files.json"]
)
@pytest.mark.parametrize("damage", [truncate, change, Path.unlink])
def test_damage_to_a_conversion_is_seen(
    tiny_model: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    directory = tmp_path / "converted"
    shutil.copytree(tiny_model, directory)
    gguf_files._write_manifest(directory)
    assert gguf_files._is_whole(directory)
    damage(directory / file)
    assert not gguf_files._is_whole(directory)


_KILLED = """
import os, sys
from pathlib import Path
from backends.local import gguf_files
from backends.local.models import load_model, locate
gguf_files.platformdirs.user_cache_path = lambda _: Path(sys.argv[1])
gguf_files._write_manifest = lambda _: os.kill(os.getpid(), 9)
locate(sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_or_damaged_conversion_is_made_again(
    small_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _KILLED, str(cache), str(small_gguf)]
    environment = os.environ | {"PYTHONPATH": str(Path(gguf_files.__file__).parents[2])}
    assert subprocess.run(command, check=False, env=environment).returncode == -9
    assert len(list((cache / "models").glob(".converting-*/model.safetensors"))) == 1
    directory = Path(locate(str(small_gguf)))
    assert {path.name for path in (cache / "models").iterdir()} == {".lock", directory.name}
    shutil.copytree(directory, whole := tmp_path / "whole")
    truncate(directory / "model.safetensors")
    again: list[Path] = []

    def convert(file: Path, target: Path) -> None:
        again.append(file)
        shutil.copytree(whole, target, dirs_exist_ok=True)

    monkeypatch.setattr(gguf_files, "_convert", convert)
    assert Path(locate(str(small_gguf))) == directory
    assert again == [small_gguf]
    load_model(str(directory), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("length", [4, 1000, 100_000, 2_000_000])  # 2 MB: within the tensors
def test_a_file_that_is_cut_off_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(gguf_files.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    with embedded_file(EMBEDDED.removeprefix("embedded:")).open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(length))
    with pytest.raises(ModelError, match=r"cut\.gguf: can't be read as a GGUF model: truncated"):
        locate(str(tmp_path / "cut.gguf"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./missing", "no such file or directory"),
        ("weights.bin", r"of single files only \.gguf"),
        ("empty", r"it has no config\.json"),
        ("adapter", "it is an adapter: give its base model"),
    ],
)
def test_what_is_no_model_is_refused(model: str, message: str) -> None:
    Path("weights.bin").touch()
    Path("empty").mkdir()
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        locate(model)
