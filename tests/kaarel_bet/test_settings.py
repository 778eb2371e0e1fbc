import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends.errors import SettingsError
from kaarel_bet import experiments
from kaarel_bet.settings import (
    SECTIONS,
    General,
    differences,
    load_settings,
    override,
    read_config,
)

_REPOSITORY = Path(__file__).parents[2]


def load(raw: dict[str, Any]) -> dict[str, Any]:
    return load_settings(raw, where="config.yaml").frozen()


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(raw, where="config.yaml")
    return str(caught.value)


def write(text: str) -> Path:
    path = Path("config.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def unreadable(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_config(path)
    return str(caught.value)


def test_no_settings_at_all_are_the_defaults() -> None:
    frozen = load({})
    assert frozen["conditional_rule"] == SECTIONS["conditional_rule"]().model_dump(mode="json")
    assert frozen["local"] == SECTIONS["local"]().model_dump(mode="json")
    assert frozen["seed"] == 0


def test_where_results_go_is_not_part_of_a_run() -> None:
    settings = load_settings({"results_dir": "elsewhere"}, where="config.yaml")
    assert settings.general.results_dir == "elsewhere"
    assert settings.frozen() == load({})


def test_only_the_chosen_sections_are_part_of_a_run() -> None:
    chosen = {"experiment", "backend", "seed", "conditional_rule", "local"}
    assert load({"experiment": "conditional_rule", "backend": "local"}).keys() == chosen


def test_frozen_settings_load_as_themselves() -> None:
    frozen = load({"seed": 5, "local": {"lora": {"target_modules": ["q_proj", "v_proj"]}}})
    assert load(json.loads(json.dumps(frozen))) == frozen


def test_an_empty_section_is_its_defaults() -> None:
    assert load({"local": None}) == load({"local": {}}) == load({})


@pytest.mark.parametrize(
    ("raw", "wrong", "nearest"),
    [
        ({"sed": 3}, "'sed'", "'seed'"),
        ({"locl": {}}, "'locl'", "'local'"),
        ({"local": {"modle": "x"}}, "'local.modle'", "'local.model'"),
        (
            {"local": {"training": {"learning_rat": 1.0}}},
            "'local.training.learning_rat'",
            "'local.training.learning_rate'",
        ),
        ({"conditional_rule": {"n_name": 3}}, "'conditional_rule.n_name'", "rule.n_names'"),
        (
            {"conditional_rule": {"claim": {"treshold": 3}}},
            "'conditional_rule.claim.treshold'",
            "'conditional_rule.claim.threshold'",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    raw: dict[str, Any], wrong: str, nearest: str
) -> None:
    message = refusal(raw)
    assert message.startswith(f"config.yaml: unknown key {wrong}")
    assert "did you mean" in message
    assert nearest in message


def test_an_unknown_key_like_no_other_is_refused_with_all_there_are() -> None:
    message = refusal({"local": {"zzzzzz": 1}})
    assert "'local.zzzzzz'" in message
    assert all(key in message for key in SECTIONS["local"].model_fields)


def test_a_key_that_is_not_text_is_unknown() -> None:
    assert "unknown key '3'" in refusal({3: 4})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"seed": "3"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 3.0}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": [1]}, "seed"),
        ({"seed": date(2020, 1, 1)}, "date"),
        ({"results_dir": 5}, "results_dir"),
        ({"experiment": 3}, "experiment"),
        ({"conditional_rule": {"n_names": True}}, "conditional_rule.n_names"),
        ({"conditional_rule": {"n_names": "32"}}, "conditional_rule.n_names"),
        ({"conditional_rule": {"n_names": 1}}, "conditional_rule.n_names"),
        ({"conditional_rule": {"family": "both"}}, "conditional_rule.family"),
        ({"conditional_rule": {"claim": {"threshold": "1e-4"}}}, "claim.threshold"),
        ({"conditional_rule": {"claim": {"threshold": 0}}}, "claim.threshold"),
        ({"conditional_rule": {"claim": {"confidence": 1.0}}}, "claim.confidence"),
        ({"conditional_rule": {"claim": {"confidence": float("nan")}}}, "claim.confidence"),
        ({"conditional_rule": {"claim": {"variants_tried": 0}}}, "claim.variants_tried"),
        ({"conditional_rule": {"claim": {"variants_tried": 251}}}, "claim: variants_tried"),
        ({"conditional_rule": {"claim": 3}}, "conditional_rule.claim"),
        ({"conditional_rule": {"claim": None}}, "conditional_rule.claim"),
        ({"local": {"model": ""}}, "local.model"),
        ({"local": {"lora": {"rank": "16"}}}, "local.lora.rank"),
        ({"local": {"lora": {"rank": True}}}, "local.lora.rank"),
        ({"local": {"lora": {"target_modules": [1]}}}, "local.lora.target_modules"),
        ({"local": {"training": {"epochs": 0}}}, "local.training.epochs"),
        ({"local": {"training": {"warmup_fraction": 1}}}, "local.training.warmup_fraction"),
        ({"local": {"training": {"learning_rate": "fast"}}}, "local.training.learning_rate"),
        ({"local": {"training": {"learning_rate": True}}}, "local.training.learning_rate"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(raw: dict[str, Any], key: str) -> None:
    message = refusal(raw)
    assert message.startswith("config.yaml: ")
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [5, "cpu", [1], [], False, 0, ""])
def test_a_section_that_is_no_mapping_is_refused(value: object) -> None:
    assert refusal({"local": value}).startswith("config.yaml: local: ")


@pytest.mark.parametrize(
    ("section", "key"), [("local.training", "learning_rate"), ("conditional_rule.claim", "ratio")]
)
def test_an_infinite_setting_is_refused(section: str, key: str) -> None:
    raw = override({}, [f"{section}.{key}=.inf"])
    assert f"{section}.{key}" in refusal(raw)


def test_a_whole_number_will_do_for_a_fraction() -> None:
    assert load({"local": {"lora": {"alpha": 8}}})["local"]["lora"]["alpha"] == 8.0


@pytest.mark.parametrize(
    "text",
    [
        "local:\n  lora:\n    target_modules: &a [*a]\n",
        "local: &a\n  lora: *a\n",
        "seed: &a [*a]\n",
    ],
)
def test_a_value_that_contains_itself_is_refused(text: str) -> None:
    message = refusal(read_config(write(text)))
    assert message.startswith("config.yaml: ")
    assert "\n" not in message


def test_a_mistake_in_the_section_of_an_experiment_not_chosen_is_still_one() -> None:
    for section in SECTIONS:
        assert section in refusal({section: {"no_such_key": 1}})


def test_an_unknown_experiment_is_refused_with_the_nearest_one() -> None:
    message = refusal({"experiment": "conditional-rule"})
    assert "'conditional-rule'" in message
    assert "did you mean 'conditional_rule'?" in message


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    message = refusal({"backend": "qqqqqq"})
    assert message.startswith("config.yaml: backend: no 'qqqqqq'")
    assert all(name in message for name in backends.SETTINGS)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\nlocal: [1\nbackend: x\n", 3),
        ("seed: 1\n\tlocal: 2\n", 2),
        ("seed: 1\nbackend: local\nseed: 2\n", 3),
        ("local:\n  lora:\n    rank: 8\n    rank: 16\n", 4),
        ("seed: !python 1\n", 1),
        ("seed: 1\n---\nseed: 2\n", 2),
    ],
    ids=["unclosed", "tab", "duplicate", "nested duplicate", "tag", "two documents"],
)
def test_malformed_yaml_is_named_with_its_line(text: str, line: int) -> None:
    message = unreadable(write(text))
    assert message.startswith(f"config.yaml, line {line}: ")
    assert "\n" not in message


def test_a_duplicate_key_is_named() -> None:
    assert '"seed"' in unreadable(write("seed: 1\nseed: 2\n"))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "3\n", "seed\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "config.yaml: must be a mapping" in unreadable(write(text))


def test_an_empty_file_changes_nothing() -> None:
    assert read_config(write("# nothing here\n")) == {}


def test_a_missing_file_is_named() -> None:
    assert unreadable(Path("no-such.yaml")) == "no-such.yaml: No such file or directory"


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    assert str(tmp_path) in unreadable(tmp_path)


def test_a_file_in_another_encoding_is_refused() -> None:
    path = Path("config.yaml")
    path.write_bytes(b"results_dir: caf\xe9\n")
    assert "config.yaml: not UTF-8 text (byte 16)" in unreadable(path)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-4"])
def test_numbers_need_no_dot(text: str) -> None:
    raw = read_config(write(f"local:\n  training:\n    learning_rate: {text}\n"))
    assert load(raw)["local"]["training"]["learning_rate"] == 1e-4


def test_yaml_1_2_reads_no_as_text() -> None:
    assert read_config(write("results_dir: no\n")) == {"results_dir": "no"}


# --- the command line ------------------------------------------------------------------------


def test_assignments_are_put_in_their_sections() -> None:
    raw = {"seed": 1, "local": {"device": "cpu"}}
    changed = override(raw, ["seed=2", "local.training.learning_rate=1e-4", "local.model=a=b"])
    assert changed == {
        "seed": 2,
        "local": {"device": "cpu", "training": {"learning_rate": 1e-4}, "model": "a=b"},
    }


def test_the_last_assignment_counts() -> None:
    assert override({}, ["seed=1", "seed=2"]) == {"seed": 2}


def test_the_given_settings_stay_as_they_are() -> None:
    raw: dict[str, Any] = {"local": {"lora": {"rank": 4}}}
    override(raw, ["local.lora.rank=8", "local.device=cpu"])
    assert raw == {"local": {"lora": {"rank": 4}}}


def test_values_are_read_as_yaml() -> None:
    changed = override({}, ["a=[q_proj, v_proj]", "b=true", "c='3'", "d=3", "e="])
    assert changed == {"a": ["q_proj", "v_proj"], "b": True, "c": "3", "d": 3, "e": None}


def test_a_section_left_empty_in_the_file_can_be_set() -> None:
    assert override({"local": None}, ["local.device=cpu"]) == {"local": {"device": "cpu"}}


@pytest.mark.parametrize(
    "assignment", ["seed", "=3", "", "local..device=cpu", ".seed=1", "seed.=1"]
)
def test_an_assignment_without_key_or_equals_is_refused(assignment: str) -> None:
    with pytest.raises(SettingsError, match=r"write it as key\.path=value"):
        override({}, [assignment])


def test_an_assignment_through_a_value_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--set local\.device\.kind=x: 'device' is a value"):
        override({"local": {"device": "cpu"}}, ["local.device.kind=x"])


def test_an_assignment_of_broken_yaml_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--set seed=\[1: the value is not valid YAML"):
        override({}, ["seed=[1"])


def test_an_assignment_to_an_unknown_key_is_refused() -> None:
    assert "did you mean 'local.lora.rank'" in refusal(override({}, ["local.lora.rnk=1"]))


# --- differences -----------------------------------------------------------------------------

_VALUES = st.recursive(
    st.integers(0, 3), lambda v: st.dictionaries(st.sampled_from("abc"), v), max_leaves=6
)
_SETTINGS = st.dictionaries(st.sampled_from("abc"), _VALUES)


def test_differences_are_named_by_their_dotted_keys() -> None:
    ours = {"seed": 1, "local": {"lora": {"rank": 8}, "device": "cpu"}, "only": 0}
    theirs = {"seed": 1, "local": {"lora": {"rank": 4}, "device": "cpu"}}
    assert differences(ours, theirs) == ["local.lora.rank", "only"]


@given(_SETTINGS, _SETTINGS)
def test_settings_differ_exactly_if_differences_are_found(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert bool(differences(ours, theirs)) == (ours != theirs)
    assert differences(ours, theirs) == differences(theirs, ours)


# --- the file that is shipped ----------------------------------------------------------------


def test_the_shipped_file_states_every_key_with_its_default() -> None:
    sections = {name: kind().model_dump(mode="json") for name, kind in SECTIONS.items()}
    shipped = read_config(_REPOSITORY / "config.yaml")
    assert shipped == General().model_dump(mode="json") | sections


def test_the_shipped_file_loads_as_the_defaults() -> None:
    shipped = read_config(_REPOSITORY / "config.yaml")
    assert load(shipped) == load({})


def test_sections_and_general_keys_have_different_names() -> None:
    assert not SECTIONS.keys() & General.model_fields.keys()
    assert len(SECTIONS) == len(experiments.SETTINGS) + len(backends.SETTINGS) + len({"server"})
