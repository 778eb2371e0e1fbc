"""The presets are settings that hold."""

from pathlib import Path

import pytest

import backends
from kaarel_bet.bet.claims import check_claims
from kaarel_bet.bet.schema import Also
from kaarel_bet.experiments import open_experiment
from kaarel_bet.settings import Settings, load_settings
from kaarel_bet.yaml_files import read

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.yaml"))


def preset(stem: str) -> Settings:
    (path,) = (path for path in PRESETS if path.stem == stem)
    return load_settings(read(path))


@pytest.mark.parametrize("path", PRESETS, ids=[path.stem for path in PRESETS])
def test_every_preset_can_be_read_and_names_its_bet(path: Path) -> None:
    settings = preset(path.stem)
    assert settings.general.experiment in read(path).data
    experiment = open_experiment(settings.bet, settings.loaded.folder, 0)
    check_claims(settings.bet, experiment.vocabulary())


def test_the_tinyllama_preset_is_the_published_protocol() -> None:
    settings = preset("redefine_tinyllama")
    bet = settings.frozen()["bet"]
    assert bet["data"]["items"]["split"]["test"] == 249
    assert bet["arms"].keys() == {"tuned", "placebo"}
    assert bet["arms"]["tuned"]["train"][0]["take"] == 995
    few_shot = bet["evaluations"]["few_shot"]["examples"]
    assert (few_shot["n"], few_shot["choose"]) == (5, "first")
    assert bet["replicate"] == {"training": 3}
    published = [one.published for one in settings.bet.report.also if isinstance(one, Also)]
    assert published == [0.4618, 0.5743, 0.8032]


def test_the_tiny_arc_preset_draws_a_dozen_small_tasks_whose_cells_are_tokens() -> None:
    settings = preset("arc_tiny")
    backend = backends.open_backend("local", settings.backend)
    design = open_experiment(settings.bet, settings.loaded.folder, 0).design(backend.tokenize)
    assert str(design.notes["tasks of arc1-training"]).startswith(
        "12 for train, 8 for other, 6 for test; "
    )
    assert design.notes["cells of sample grids that are not one token"] == 0
    sizes = [len(arm.training.examples) for arm in design.arms if arm.training]
    assert all(size >= 10 for size in sizes)  # what hosted services take
