"""The presets are settings that hold."""

from pathlib import Path

import pytest

import backends
from kaarel_bet.experiments import open_experiment
from kaarel_bet.settings import load_settings, read_config

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=[path.stem for path in PRESETS])
def test_every_preset_can_be_read_and_names_its_experiment(path: Path) -> None:
    settings = load_settings(read_config(path), where=path.name)
    assert settings.general.experiment in read_config(path)


def test_the_tiny_arc_preset_draws_a_dozen_small_tasks_whose_cells_are_tokens() -> None:
    (path,) = (path for path in PRESETS if path.stem == "arc_tiny")
    settings = load_settings(read_config(path), where=path.name)
    backend = backends.open_backend("local", settings.backend)
    design = open_experiment("arc", settings.experiment, 0).design(backend.tokenize)
    assert str(design.notes["tasks of arc1-training"]).startswith(
        "12 for train, 8 for other, 6 for test; "
    )
    assert design.notes["cells of sample grids that are not one token"] == 0
    sizes = [len(arm.training.examples) for arm in design.arms if arm.training]
    assert all(size >= 10 for size in sizes)  # what hosted services take
