import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends.errors import SettingsError
from kaarel_bet.bet.source import shipped
from kaarel_bet.documents import Document
from kaarel_bet.settings import (
    RESERVED,
    SECTIONS,
    General,
    Settings,
    differences,
    load_frozen,
    load_settings,
)
from kaarel_bet.yaml_files import read

_REPOSITORY = Path(__file__).parents[2]


def load(raw: dict[str, Any]) -> dict[str, Any]:
    return load_settings(raw, where="config.yaml").frozen()


def refusal(raw: dict[str, Any], *assignments: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(raw, assignments, where="config.yaml")
    return str(caught.value)


def write(text: str) -> Path:
    path = Path("config.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def unreadable(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read(path)
    return str(caught.value)


MINE = """\
bet: 1
name: mine
question: Does it?
settings: {local.training.epochs: 20, local.lora.rank: 4}
data:
  words: {rows: [{word: a}, {word: b}]}
  more: {file: more.csv}
arms:
  tuned:
    train: [{rows: words, prompt: "{word}?", answer: "{word}"}]
    settings: {local.training.learning_rate: 1e-3}
evaluations:
  asked: {rows: words, prompt: "{word}?", candidates: {right: "{word}"}}
claims:
  learns: {criteria: ["mean(P(right | asked, tuned)) > 0.5"]}
"""


def mine(*assignments: str, text: str = MINE, **raw: object) -> Settings:
    Path("mine.yaml").write_text(text, encoding="utf-8")
    return load_settings({"experiment": "mine.yaml", **raw}, assignments, where="config.yaml")


def test_no_settings_at_all_are_the_defaults() -> None:
    frozen = load({})
    assert frozen["experiment"] == frozen["bet"]["name"] == "conditional_rule"
    assert frozen["local"] == SECTIONS["local"]().model_dump(mode="json")
    assert frozen["seed"] == 0


def test_where_results_go_is_not_part_of_a_run() -> None:
    settings = load_settings({"results_dir": "elsewhere"}, where="config.yaml")
    assert settings.general.results_dir == "elsewhere"
    assert settings.frozen() == load({})


def test_only_the_chosen_sections_are_part_of_a_run() -> None:
    chosen = {"experiment", "backend", "seed", "bet", "choices", "files", "local"}
    assert load({"experiment": "conditional_rule", "backend": "local"}).keys() == chosen


@pytest.mark.parametrize("name", shipped())
def test_frozen_settings_load_as_themselves(name: str) -> None:
    raw = {
        "experiment": name,
        "seed": 5,
        "local": {"lora": {"target_modules": ["q_proj", "v_proj"]}},
    }
    frozen = load(raw)
    again = Document("run", json.loads(json.dumps(frozen)))  # plain data
    assert load_frozen(again, Path("nowhere")).frozen() == frozen


def test_frozen_settings_need_no_file_and_take_assignments_as_others_do() -> None:
    frozen = mine("local.lora.rank=2").frozen()
    Path("mine.yaml").unlink()
    again = load_frozen(Document("run", frozen), Path())
    assert again.frozen() == frozen
    assert again.backend.model_dump()["lora"]["rank"] == 2
    changed = load_frozen(Document("run", frozen), Path(), ["mine.replicate.training=3", "seed=1"])
    assert differences(changed.frozen(), frozen) == ["bet.replicate.training", "seed"]
    with pytest.raises(SettingsError, match="unknown key 'arm'"):
        load_frozen(Document("run", frozen), Path(), ["mine.arm.x=1"])


def test_a_key_that_is_left_out_is_left_out_of_frozen_settings_as_well() -> None:
    other = '  other: {train: [{rows: words, prompt: "{word}?", answer: "{word}"}]}\nevaluations:'
    left_out = "mine.arms.other=null"
    frozen = mine(left_out, text=MINE.replace("evaluations:", other)).frozen()
    assert frozen["bet"]["arms"].keys() == {"tuned"}
    assert load_frozen(Document("run", frozen), Path(), [left_out]).frozen() == frozen
    with pytest.raises(SettingsError, match=r"mine: name a key of the bet, mine\.KEY=value"):
        load_frozen(Document("run", frozen), Path(), ["mine=3"])


def test_a_choice_that_was_made_can_be_compared() -> None:
    frozen = load({"conditional_rule": {"family": "task_id"}})
    given = load_frozen(Document("run", frozen), Path(), ["conditional_rule.family=in_prompt"])
    assert differences(given.frozen(), frozen) == ["choices.family"]


def test_a_bets_own_settings_stand_between_the_file_and_the_command_line() -> None:
    local = mine("local.training.epochs=3", local={"lora": {"rank": 8, "alpha": 8.0}}).backend
    found = local.model_dump()
    assert (found["training"]["epochs"], found["lora"]["rank"], found["lora"]["alpha"]) == (3, 4, 8)


def test_an_arms_own_settings_are_laid_over_all_others() -> None:
    settings = mine()
    own = settings.backend_with({"local.training.epochs": 1}, "tuned").model_dump()
    assert (own["training"]["epochs"], own["lora"]["rank"]) == (1, 4)
    assert settings.backend.model_dump()["training"]["epochs"] == 20
    assert settings.backend_with({"openai.job.n_epochs": 1}, "tuned") == settings.backend


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "local.training.learning_rate: 1e-3",
            "local.training.learning_rat: 1e-3",
            "mine.yaml, line 11, column 5: arms.tuned.settings: unknown key "
            "'local.training.learning_rat'; did you mean 'local.training.learning_rate'?",
        ),
        (
            "learning_rate: 1e-3",
            "learning_rate: -1",
            "arms.tuned.settings: local.training.learning_rate",
        ),
        (
            "local.training.epochs: 20",
            "loca.training.epochs: 20",
            "mine.yaml, line 4, column 1: settings: 'loca.training.epochs' is no setting of a backend; "
            "did you mean 'local'?",
        ),
        (
            "local.training.epochs: 20",
            "local.training.epochs: 0",
            "settings: local.training.epochs: ",
        ),
        ("local.training.epochs: 20", "local: {}", "'local' is no setting of a backend"),
    ],
)
def test_a_wrong_setting_of_a_bet_or_an_arm_is_named(old: str, new: str, message: str) -> None:
    assert old in MINE
    with pytest.raises(SettingsError) as caught:
        mine(text=MINE.replace(old, new))
    assert message in str(caught.value)


def test_what_the_readme_says_of_the_bet_goes_on_working() -> None:
    told = load_settings({}, ["conditional_rule.family=task_id"])
    assert told.frozen()["choices"] == {"family": "task_id"}
    assert told.frozen()["bet"] != load({})["bet"]
    both = load_settings({}, ["conditional_rule.loss_on=prompt_and_completion"])
    assert both.frozen()["bet"]["loss_on"] == "prompt_and_completion"


def test_a_bet_whose_file_is_not_there_is_named() -> None:
    assert refusal({"experiment": "a/b.yaml"}) == "a/b.yaml: No such file or directory"
    assert "'seed' is a key of config.yaml" in refusal_of_mine("name: mine", "name: seed")


def refusal_of_mine(old: str, new: str) -> str:
    with pytest.raises(SettingsError) as caught:
        mine(text=MINE.replace(old, new))
    return str(caught.value)


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
        ({"conditional_rule": {"replicat": {}}}, "'replicat'", "'replicate'"),
        ({"conditional_rul": {}}, "'conditional_rul'", "'conditional_rule'"),
        (
            {"conditional_rule": {"intervals": {"confidnce": 0.5}}},
            "'intervals.confidnce'",
            "'intervals.confidence'",
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


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"seed": "3"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 3.0}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": [1]}, "seed"),
        ({"results_dir": 5}, "results_dir"),
        ({"experiment": 3}, "experiment"),
        ({"conditional_rule": {"loss_on": 3}}, "loss_on"),
        ({"conditional_rule": {"family": "both"}}, "conditional_rule.family"),
        ({"conditional_rule": {"parameters": {"threshold": "1e-4"}}}, "parameters.threshold"),
        ({"conditional_rule": {"intervals": {"confidence": 1.0}}}, "intervals.confidence"),
        ({"conditional_rule": {"intervals": {"settings_tried": 0}}}, "intervals.settings_tried"),
        ({"conditional_rule": {"intervals": 3}}, "intervals"),
        ({"conditional_rule": [1]}, "conditional_rule"),
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
    message = unreadable(write(text))
    assert message.startswith("config.yaml, line ")
    assert message.endswith(": a value contains itself")


def test_a_mistake_in_the_section_of_a_bet_or_backend_not_chosen_is_still_one() -> None:
    for section in (*SECTIONS, *shipped()):
        assert "no_such_key'" in refusal({section: {"no_such_key": 1}})


def test_an_unknown_experiment_is_refused_with_the_nearest_one() -> None:
    message = refusal({"experiment": "conditional-rule"})
    assert "no bet 'conditional-rule'" in message
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
    assert message.startswith(f"config.yaml, line {line}, column ")
    assert "\n" not in message


def test_a_duplicate_key_is_named() -> None:
    assert '"seed"' in unreadable(write("seed: 1\nseed: 2\n"))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "3\n", "seed\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "config.yaml: must be a mapping" in unreadable(write(text))


def test_an_empty_file_changes_nothing() -> None:
    assert read(write("# nothing here\n")).data == {}


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
    document = read(write(f"local:\n  training:\n    learning_rate: {text}\n"))
    assert load_settings(document).frozen()["local"]["training"]["learning_rate"] == 1e-4


def test_yaml_1_2_reads_no_as_text() -> None:
    assert read(write("results_dir: no\n")).data == {"results_dir": "no"}


# --- the command line ------------------------------------------------------------------------


def general(*assignments: str) -> dict[str, Any]:
    return load_settings({"seed": 1, "local": {"device": "cpu"}}, assignments).frozen()


def test_assignments_are_put_in_their_sections() -> None:
    changed = general("seed=2", "local.training.learning_rate=1e-4", "local.model=a=b")
    assert changed["seed"] == 2
    assert changed["local"]["training"]["learning_rate"] == 1e-4
    assert (changed["local"]["device"], changed["local"]["model"]) == ("cpu", "a=b")


def test_the_last_assignment_counts() -> None:
    assert general("seed=1", "seed=2")["seed"] == 2


def test_the_given_settings_stay_as_they_are() -> None:
    raw: dict[str, Any] = {"local": {"lora": {"rank": 4}}}
    load_settings(raw, ["local.lora.rank=8", "local.device=cpu"])
    assert raw == {"local": {"lora": {"rank": 4}}}


def test_values_are_read_as_yaml() -> None:
    lora = general("local.lora.target_modules=[q_proj, v_proj]", "local.model='3'")["local"]
    assert (lora["lora"]["target_modules"], lora["model"]) == (["q_proj", "v_proj"], "3")


def test_a_section_left_empty_in_the_file_can_be_set() -> None:
    found = load_settings({"local": None}, ["local.device=cpu"]).frozen()
    assert found["local"]["device"] == "cpu"


@pytest.mark.parametrize(
    "assignment", ["seed", "=3", "", "local..device=cpu", ".seed=1", "seed.=1"]
)
def test_an_assignment_without_key_or_equals_is_refused(assignment: str) -> None:
    assert "write it as key.path=value" in refusal({}, assignment)


def test_an_assignment_through_a_value_is_refused() -> None:
    message = refusal({"local": {"device": "cpu"}}, "local.device.kind=x")
    assert message == "command line: local.device.kind: 'device' is a value, not a section"


@pytest.mark.parametrize("value", ["[1", "&a [*a]", ".inf"])
def test_an_assignment_of_broken_yaml_is_refused(value: str) -> None:
    assert f"--set seed={value}: the value is not valid YAML" in refusal({}, f"seed={value}")


def test_an_assignment_to_an_unknown_key_is_refused() -> None:
    message = refusal({}, "local.lora.rnk=1")
    assert message.startswith(
        "command line: unknown key 'local.lora.rnk'; did you mean 'local.lora.rank'"
    )
    assert "unknown key 'conditional_rul'" in refusal({}, "conditional_rul.seed=1")
    assert "name a key of the bet" in refusal({}, "conditional_rule=1")


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
    shipped_file = read(_REPOSITORY / "config.yaml").data
    assert shipped_file == General().model_dump(mode="json") | sections


def test_the_examples_in_the_shipped_file_hold() -> None:
    text = (_REPOSITORY / "config.yaml").read_text(encoding="utf-8")
    example = text[text.index("# conditional_rule:\n") : text.index("# --- Backends")]
    document = read(write("\n".join(line[2:] for line in example.splitlines())))
    assert document.data.keys() == {"conditional_rule", "inverse_scaling"}
    for name in document.data:
        changed = load_settings(document, [f"experiment={name}"]).frozen()
        assert changed["bet"] != load({"experiment": name})["bet"]


def test_sections_and_general_keys_have_different_names_which_no_bet_has() -> None:
    assert not SECTIONS.keys() & General.model_fields.keys()
    assert not set(RESERVED) & set(shipped())
