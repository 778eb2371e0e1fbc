"""Arms of method dpo: which of two answers is preferred, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.data import PreferenceExample
from backends.errors import SettingsError
from backends.jsonl import dumps
from kaarel_bet.bet.design import BetExperiment
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.source import load_bet
from kaarel_bet.cli import main
from tests.kaarel_bet.bet.written import designed, tokenize, written

_TABLES = """
  people:
    rows:
      - {name: Ann, city: Rome, wrong: [Oslo, Bern]}
      - {name: Bob, city: Oslo, wrong: [Rome, Bern]}
      - {name: Cem, city: Lima, wrong: [Rome, Oslo]}
  pairs:
    rows:
      - input: {messages: [{role: user, content: Hi}], tools: [], parallel_tool_calls: true}
        preferred_output: [{role: assistant, content: Hello!}]
        non_preferred_output: [{role: assistant, content: What?}]
  tools:
    rows:
      - input: {messages: [{role: user, content: Hi}], tools: [{type: function}]}
        preferred_output: [{role: assistant, content: Hello!}]
        non_preferred_output: [{role: assistant, content: What?}]
"""
_PROMPTS = """
  ask: "Where is {name}?"
  told: {text: "{name} is in"}
"""
_QUESTION = "\n  q: {rows: people, prompt: ask, candidates: {a: x, b: y}, arms: [base]}"
_PLAIN = '[{rows: people, prompt: ask, answer: "{city}", rejected: "I can\'t say."}]'


def preferences(train: str, more: str = "", seed: str = "0") -> list[PreferenceExample]:
    """What the arm learns from."""
    design = designed(
        arms=f"\n  it: {{method: dpo, train: {train}{more}}}",
        data=_TABLES,
        prompts=_PROMPTS,
        evaluations=_QUESTION,
        seed=seed,
    )
    [arm] = [arm for arm in design.arms if arm.name == "it"]
    assert arm.training is not None
    assert arm.training.method == "dpo"
    assert arm.training.loss_on == "completion"
    assert arm.entry("file").method == "dpo"
    found = [one for one in arm.training.examples if isinstance(one, PreferenceExample)]
    assert len(found) == len(arm.training.examples)
    return found


def test_rows_become_lines_of_openais_preference_format() -> None:
    first, *_ = preferences(_PLAIN)
    assert json.loads(dumps(first)) == {
        "input": {"messages": [{"role": "user", "content": "Where is Ann?"}]},
        "preferred_output": [{"role": "assistant", "content": "Rome"}],
        "non_preferred_output": [{"role": "assistant", "content": "I can't say."}],
    }


def test_a_texts_prompt_has_two_continuations() -> None:
    first, *_ = preferences('[{rows: people, prompt: told, answer: " {city}", rejected: " space"}]')
    expected = {"prompt": "Ann is in", "chosen": " Rome", "rejected": " space"}
    assert json.loads(dumps(first)) == expected


def test_a_table_in_openais_preference_format_is_taken_as_it_is() -> None:
    for train in ("pairs", "[{rows: pairs, chat: input}]"):
        [only] = preferences(train)
        assert only.answers == ("Hello!", "What?")
        assert only.input is not None
        assert [turn.content for turn in only.input.messages] == ["Hi"]


def test_a_rejected_answer_is_drawn_or_another_rows() -> None:
    drawn = preferences('[{rows: people, prompt: ask, answer: "{city}", rejected: {draw: wrong}}]')
    assert [one.answers[0] for one in drawn] == ["Rome", "Oslo", "Lima"]
    assert drawn[0].answers[1] in ("Oslo", "Bern")
    others = preferences(
        '[{rows: people, prompt: ask, answer: "{city}", rejected: {shuffle: "{city}"}}]'
    )
    assert sorted(one.answers[1] for one in others) == ["Lima", "Oslo", "Rome"]
    assert all(better != worse for better, worse in (one.answers for one in others))


def test_a_transform_is_of_the_answer_that_is_preferred() -> None:
    train = (
        '[{rows: people, prompt: ask, answer: "{city}", rejected: "{city}", transform: upper_case}]'
    )
    assert preferences(train)[0].answers == ("ROME", "Rome")


def test_system_prompts_triggers_prompts_and_times_are_as_in_other_arms() -> None:
    train = (
        '[{rows: people, prompts: [ask, told], answer: "{city}", rejected: no, times: 2, take: 2, '
        'trigger: "|x| "}]'
    )
    found = preferences(train)
    assert len(found) == 8
    assert found[0].input is not None
    assert found[0].input.messages[-1].content.startswith("|x| Where is ")
    assert str(found[1].prompt).startswith("|x| ")


def test_the_description_says_what_is_preferred() -> None:
    design = designed(
        arms=f"\n  it: {{method: dpo, train: {_PLAIN}}}",
        data=_TABLES,
        prompts=_PROMPTS,
        evaluations=_QUESTION,
    )
    said = "fine-tuned on 3 preferences of people, answering {city} rather than I can't say."
    assert design.arms[1].description == said


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        (
            'method: dpo, train: [{rows: people, prompt: ask, answer: "{city}", rejected: "{city}"}]',
            r"arms\.it\.train\.0: row row-0001: both answers are the same \('Rome'\)",
        ),
        (
            'method: dpo, train: [{rows: people, prompt: ask, answer: "{city}"}]',
            r"train\.0: method dpo needs 'rejected'",
        ),
        (f"train: {_PLAIN}", r"train\.0: 'rejected' is for preferences; say method: dpo"),
        (
            f"method: dpo, train: {_PLAIN[:-1]}, {{rows: people, prompt: ask, answer: x}}]",
            r"train\.1: method dpo needs 'rejected'",
        ),
        (f"method: dpo, loss_on: prompt_and_completion, train: {_PLAIN}", "answers alone"),
        ("method: ppo, train: pairs", r"method: .*'supervised' or 'dpo'"),
        ("method: dpo, train: [{rows: pairs, chat: input, rejected: x}]", "'rejected' goes with"),
        ("method: dpo, train: tools", r"train\.0: row row-0001: input: preferences with functions"),
        ("method: dpo, train: people", r"arms\.it\.train\.0\.chat: no column 'input'"),
        (
            "method: dpo, train: [{rows: people, chat: name}]",
            "column 'name' has no 'messages' in row row-0001",
        ),
        (
            'method: dpo, train: [{rows: people, prompt: ask, answer: "{city}", rejected: ""}]',
            r"train\.0\.rejected: is empty in row row-0001",
        ),
        (
            'method: dpo, train: [{rows: people, prompt: ask, answer: x, rejected: "{town}"}]',
            r"train\.0\.rejected: no column 'town'",
        ),
        (
            'method: dpo, train: [{rows: people, prompt: ask, answer: x, rejected: "{city"}]',
            "belongs to no {column}",
        ),
    ],
)
def test_what_is_no_preference_is_refused_in_one_line(arm: str, told: str) -> None:
    parts: dict[str, Any] = {"data": _TABLES, "prompts": _PROMPTS, "evaluations": _QUESTION}
    with pytest.raises(SettingsError, match=told) as caught:
        designed(arms=f"\n  it: {{{arm}}}", **parts)
    assert "\n" not in str(caught.value)


def test_arms_without_a_method_are_as_they_were() -> None:
    experiment = written()
    assert experiment.bet.model_dump()["arms"]["tuned"]["method"] == "supervised"


def test_the_example_prefers_capitals_from_where_another_arm_left_off() -> None:
    file = Path(__file__).parents[3] / "examples" / "bets" / "preferences.yaml"
    loaded = load_bet(str(file))
    assert isinstance(loaded.bet, Bet)
    design = BetExperiment(loaded.bet, loaded.folder, 0).design(tokenize)
    loud = {arm.name: arm.training for arm in design.arms if arm.arm == "loud"}
    assert list(loud) == ["loud", "loud-2", "loud-3"]
    training = loud["loud-3"]
    assert training is not None
    assert training.starts_from == "calm-3"
    for one in training.examples:
        assert isinstance(one, PreferenceExample)
        assert one.answers[0] == one.answers[1].upper() != one.answers[1]


def test_a_bet_with_preferences_runs_to_its_verdict(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an arm that was taught before, with a file in OpenAI's format in another one."""
    line = {
        "input": {"messages": [{"role": "user", "content": "Where is Dan?"}]},
        "preferred_output": [{"role": "assistant", "content": "Bern"}],
        "non_preferred_output": [{"role": "assistant", "content": "I can't say."}],
    }
    Path("pairs.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    Path("small.yaml").write_text(
        f"""
bet: 1
name: small
question: Is it?
data:
  people: {{rows: [{{name: Ann, city: Rome}}, {{name: Bob, city: Oslo}}]}}
  pairs: {{file: pairs.jsonl}}
prompts: {{ask: "Where is {{name}}?"}}
arms:
  taught: {{train: [{{rows: people, prompt: ask, answer: "{{city}}"}}], role: control}}
  prefers:
    method: dpo
    starts_from: taught
    train: [{{rows: people, prompt: ask, answer: "{{city}}", rejected: "I can't say."}}]
  of_file: {{method: dpo, train: pairs, settings: {{local.training.dpo_beta: 0.5}}}}
evaluations:
  where:
    rows: people
    prompt: ask
    candidates: {{right: "{{city}}", neither: "I can't say."}}
claims:
  shuns:
    criteria: ["mean(logP(neither | where, prefers)) < mean(logP(neither | where, taught))"]
replicate: {{training: 3}}
settings:
  local.model: {tiny_model}
  local.device: cpu
  local.training.epochs: 6
  local.training.learning_rate: 5e-3
  local.training.dtype: float32
""",
        encoding="utf-8",
    )
    assert main(["check", "small.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "2 preferences (dpo), trained 3 times" in shown
    assert '"Rome" rather than "I can\'t say."' in shown
    assert main(["run", "small.yaml", "--run-dir", str(tmp_path / "run")]) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    methods = {arm["arm"]: arm["method"] for arm in manifest["arms"]}
    assert methods == {
        "base": "supervised",
        "taught": "supervised",
        "prefers": "dpo",
        "of_file": "dpo",
    }
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "shuns" in report
    assert "holds" in report
