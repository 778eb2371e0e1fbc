"""GGUF files: their conversion to safetensors, which is done once a file.

transformers takes 20 s to read even a small GGUF file, so the result is kept in the user's cache
directory under the SHA-256 of the file.
"""

import copy
import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
from pathlib import Path

import platformdirs
from filelock import FileLock
from gguf import GGUFReader
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
)

from backends.atomic import write_text
from backends.errors import ModelError

_log = logging.getLogger(__name__)

_CONVERSION = 3
"""Counted up when a change here gives other files for the same GGUF file."""

BFLOAT16 = "bfloat16"
"""transformers' "variant" that a converted model has beside its float32 weights."""

_MANIFEST = "files.json"
_HEAD_BYTES = 2**24
_WORKING = ".converting-"

_PRE_TOKENIZERS = {
    # transformers takes every GGUF byte-level tokenizer for GPT-2's; SmolLM's splits digits first.
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
}


def converted(gguf_file: Path) -> Path:
    """The directory with the file's weights (float32 and bfloat16) and tokenizer, converted if need be.

    What an earlier conversion left is used if it is whole, and made again if it is not.

    Raises:
        ModelError: the file is not one that transformers can read.
    """
    with gguf_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cache = platformdirs.user_cache_path("kaarel-bet") / "models"
    target = cache / f"{gguf_file.stem}-{digest[:16]}-{_CONVERSION}"
    if target.exists() and _is_whole(target):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    # One process at a time converts; the lock of one that was killed is gone with it.
    with FileLock(cache / ".lock"):
        for left_over in cache.glob(f"{_WORKING}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        if target.exists():
            if _is_whole(target):
                return target
            shutil.rmtree(target)
        _log.warning("converting %s for use here, once; it takes a moment", gguf_file.name)
        working = Path(tempfile.mkdtemp(prefix=_WORKING, dir=cache))
        try:
            _convert(gguf_file, working)
            _write_manifest(working)
            working.rename(target)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    return target


def _is_whole(directory: Path) -> bool:
    """Whether all that was written is still there, as far as can be told without reading all of it."""
    try:
        recorded = json.loads((directory / _MANIFEST).read_text())
        return recorded == {name: _fingerprint(directory / name) for name in recorded}
    except (OSError, ValueError, TypeError):
        return False


def _write_manifest(directory: Path) -> None:
    recorded: dict[str, list[int | str]] = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # or a crash could leave it empty, under its final name
        recorded[path.name] = _fingerprint(path)
    write_text(directory / _MANIFEST, json.dumps(recorded))


def _fingerprint(path: Path) -> list[int | str]:
    """Its size, and the SHA-256 of what it begins with: of weights, the header and more."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()]


def _convert(gguf_file: Path, target: Path) -> None:
    directory, name = str(gguf_file.parent), gguf_file.name
    try:
        reader = GGUFReader(gguf_file)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise ModelError(
            f"{gguf_file}: can't be read as a GGUF model: truncated, or damaged otherwise ({error})"
        ) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            gguf_file=name,
            dtype="float32",
            quantization_config=GgufConfig(gguf_file=name, dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=name)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{gguf_file}: can't be read as a GGUF model ({error})") from error
    field = reader.fields.get("tokenizer.ggml.pre")
    pre_tokenizer = _PRE_TOKENIZERS.get(str(field.contents()) if field else "")
    if pre_tokenizer is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    try:
        # First, for the config is of the last. Read as it is, it needs no float32 weights in memory.
        copy.deepcopy(model).bfloat16().save_pretrained(target, variant=BFLOAT16)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(f"{target.parent}: {error}") from error
