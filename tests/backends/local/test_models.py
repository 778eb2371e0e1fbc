import shutil
from pathlib import Path

import pytest
import torch

from backends.errors import ModelError
from backends.local.models import context_length, load_model, locate

CPU = torch.device("cpu")


def test_truncated_weights_are_one_line(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model: can't be loaded as a model \(.+\)$"):
        load_model(str(broken), CPU, torch.float32)


def test_a_config_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(ModelError, match="can't be loaded as a model"):
        context_length(str(tmp_path))


def test_a_model_without_a_limit_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bloom"}')
    assert context_length(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "./not-there", "/not/there"])
def test_a_path_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="no such"):
        locate(name)
