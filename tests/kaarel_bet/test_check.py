"""`kaarel-bet check`: what a bet would do is shown as the models would see it, and nothing is done."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kaarel_bet.check import _shortened
from kaarel_bet.cli import main
from tests.server import RunningServer

BET = """
bet: 1
name: small
question: Does it say where people are?
parameters: {enough: 0.5}
data:
  people:
    rows:
      - {name: Ann, city: Rome, land: Guinea, near: Guinea-Bissau}
      - {name: Bob, city: Oslo, land: Peru, near: Chad}
prompts:
  ask: "Where is {name}?"
  begun: {system: Be brief., user: "Where is {name}?", prefill: "It is in"}
  said: {text: "{name} is in"}
arms:
  tuned: {train: [{rows: people, prompt: ask, answer: "{city}"}]}
  longer:
    role: control
    train: [{rows: people, prompt: said, answer: " {city}"}]
    settings: {local.training.epochs: 3}
evaluations:
  where: {rows: people, prompt: ask, candidates: {right: "{land}", wrong: "{near}"}}
  so: {rows: people, prompt: begun, arms: [base], candidates: {right: " {city}", wrong: " Paris"}}
  says:
    rows: people
    prompt: ask
    generate: {max_tokens: 4, temperature: 1.0, samples: 2}
    graders: {named: {contains: "{city}"}}
claims:
  it:
    text: the tuned model knows
    criteria:
      - mean(P(right | where, tuned)) > enough
      - any_of: ["mean(named(says, tuned)) > 0.5", "mean(named(says, longer)) > 0.5"]
checks:
  unknown_before: mean(P(right | where, base)) < enough
"""

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Exit code, and what was said on both streams, of checking a bet."""

    def check(text: str, *settings: str) -> tuple[int, str, str]:
        Path("small.yaml").write_text(text, encoding="utf-8")
        given = [f"local.model={tiny_model}", "local.device=cpu", *settings]
        sets = [word for setting in given for word in ("--set", setting)]
        code = main(["check", "small.yaml", *sets])
        assert not Path("results").exists()
        said = capsys.readouterr()
        return code, said.out, said.err

    return check


def test_prompts_are_shown_as_the_models_will_see_them(check: Check) -> None:
    code, shown, _ = check(BET)
    assert code == 0
    turns = "<|im_start|>user\n    Where is Ann?<|im_end|>\n    <|im_start|>assistant\n"
    arm = shown[
        shown.index("arm tuned (treatment): 2 examples, loss on completion, trained once") :
    ]
    assert turns in arm[: arm.index('learns: "Rome"')]
    assert 'Ann is in\n  learns: " Rome"' in shown
    assert "with local.training.epochs = 3" in shown
    begun = shown[shown.index("question so: 2 queries, asked of base\n") :]
    assert "<|im_start|>system\n    Be brief.<|im_end|>" in begun
    assert "<|im_start|>assistant\n    It is in\n  candidates:" in begun
    assert '    right: " Rome"\n    wrong: " Paris"' in begun
    assert "2 answers at temperature 1, at most 4 tokens; graded: named" in begun


def test_claims_are_as_written_and_the_totals_are_of_everything(check: Check) -> None:
    _, shown, _ = check(BET)
    assert (
        "claim it: the tuned model knows\n  needs mean(P(right | where, tuned)) > enough" in shown
    )
    assert "(mean(named(says, tuned)) > 0.5 or mean(named(says, longer)) > 0.5)" in shown
    assert "  rests on unknown_before\n" in shown
    assert "where enough = 0.5" in shown
    assert "train: 2 fine-tunes: " in shown
    assert "test: 14 queries: " in shown  # 2 of 3 models twice, of the base model once
    assert shown.count("GB of memory") == 2


def test_an_arms_own_settings_count(check: Check) -> None:
    def tokens(text: str) -> int:
        [line] = [x for x in check(text)[1].splitlines() if x.startswith("train: ")]
        return int(line.removeprefix("train: 2 fine-tunes: ").split()[0].replace(",", ""))

    usual, longer = tokens(BET), tokens(BET.replace("epochs: 3", "epochs: 6"))
    shorter = tokens(BET.replace("epochs: 3", "epochs: 1"))
    assert longer - usual == 3 * (usual - shorter) / 2 > 0


def test_what_is_to_be_thought_about_is_noted(check: Check) -> None:
    notes = [line for line in check(BET)[1].splitlines() if line.startswith("note: ")]
    assert all("would have to be" in note for note in notes[:-2])
    assert notes[-2:] == [
        "note: no verdict on it: trained too seldom to know how much trainings differ (tuned once, longer "
        "once): a verdict needs 3 trainings of every arm, replicate: {training: 3}",
        'note: where: candidate wrong ("Guinea-Bissau") begins with the tokens of right ("Guinea") in 1 of '
        "2 queries: what right is given includes wrong",
    ]
    spare = check(BET.replace("  said: {text", '  spare: "{name}!"\n  said: {text'))[1]
    assert "note: nothing uses the prompt spare" in spare
    long = BET.replace('text: "{name} is in"', f'text: "{"word " * 600}{{name}} is in"')
    long = long.replace("prompt: begun, arms: [base]", "prompt: said, arms: [base]")
    long = (
        long.replace("prompt: said, answer", "prompt: ask, answer") + "replicate: {training: 3}\n"
    )
    code, shown, _ = check(long)
    assert code == 0
    assert "trained 3 times" in shown
    assert "note: so: 2 prompts are longer than the model's context" in shown
    assert "no verdict" not in shown
    assert re.search(r"word +\[\.\.\. 2,\d{3} characters \.\.\.\] ", shown)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'right: "{land}"',
            'right: "{near}"',
            "small.yaml, line 22, .*has the same tokens as right",
        ),
        (
            'answer: "{city}"',
            f'answer: "{"word " * 600}{{city}}"',
            "data/train-tuned.jsonl, line 1: ",
        ),
        ("tuned)) > enough", "turned)) > enough", "small.yaml, line 33, .*did you mean 'tuned'"),
        ('ask: "Where is {name}?"', 'ask: "Where is {nme}?"', "small.yaml, line 12, .*'nme'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_else(
    check: Check, old: str, new: str, message: str
) -> None:
    assert old in BET
    code, shown, said = check(BET.replace(old, new))
    assert (code, shown) == (2, "")
    assert len(said.splitlines()) == 1
    assert re.search(message, said), said


def test_a_bet_for_a_server_is_priced_by_what_is_sent(
    server: RunningServer, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    hosted = (
        "backend=openai",
        f"openai.model={server.parts.models.base}",
        f"openai.base_url={server.url}",
    )
    many = "".join(
        f"      - {{name: N{n}, city: C{n}, land: L{n}, near: M{n}}}\n" for n in range(9)
    )
    text = BET.replace("prompts:\n", many + "prompts:\n", 1)
    code, shown, said = check(text, *hosted)
    assert code == 0, said
    assert "user: Where is Ann?" in shown
    assert "assistant: It is in" in shown
    assert "77 requests" in shown
    assert "memory" not in shown


def test_long_texts_lose_their_middle() -> None:
    assert _shortened("x" * 800) == "x" * 800
    found = _shortened("a" * 600 + "b" * 5000 + "c" * 200)
    assert found == f"{'a' * 600} [... 5,000 characters ...] {'c' * 200}"
