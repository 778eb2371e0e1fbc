from pathlib import Path

import pytest
from transformers import AutoTokenizer

from backends.errors import ModelError
from backends.local import gguf_files
from backends.local.gguf_files import embedded_file
from backends.local.models import locate
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


def test_an_unknown_embedded_model_is_refused_with_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'smollm2-135m-instruct'"):
        locate("embedded:smollm2-135m")


def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_files.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"broken\.gguf: can't be read as a GGUF model"):
        locate(str(broken))
    assert list((tmp_path / "cache" / "models").iterdir()) == []


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
