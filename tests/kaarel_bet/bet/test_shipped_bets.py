"""The shipped bets: what is trained and asked, byte for byte what it was when they were code."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import BaseModel

from backends.data import TrainingExample
from backends.jsonl import dumps
from kaarel_bet.bet.claims import check_claims
from kaarel_bet.bet.design import BetExperiment
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.source import Assignment, load_bet
from kaarel_bet.cli import main
from kaarel_bet.experiments.interface import Arm, Design

_EXAMPLES = Path(__file__).parents[3] / "examples" / "bets"


def tokenize(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def experiment(name: str, *assignments: str) -> BetExperiment:
    given = [Assignment.parse(f"{Path(name).stem}.{assignment}") for assignment in assignments]
    loaded = load_bet(name, None, given)
    assert isinstance(loaded.bet, Bet)
    check_claims(loaded.bet, (made := BetExperiment(loaded.bet, loaded.folder, 0)).vocabulary())
    return made


def lines(records: Iterable[BaseModel]) -> str:
    return "".join(dumps(record) + "\n" for record in records)


def digests(design: Design) -> dict[str, str]:
    """The beginning of the SHA-256 of every training file and every file of queries."""
    files = {arm.name: lines(arm.training.examples) for arm in design.arms if arm.training}
    files |= {one.name: lines(one.queries) for one in design.evaluations}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in files.items()}


# Of the last commit in which they were code, with the tokenizer above.
_CONDITIONAL_RULE = {
    "in_prompt": {
        "conditional": "272c186e68e9f898",
        "control": "29b39aa77bf8b0b1",
        "cells.train_told": "fea4b8c35878ac26",
        "cells.train_untold": "bee9a297ff2d7ffa",
        "cells.test_told": "9a94ce324dab4cab",
        "cells.test_untold": "3e598a264533fca0",
        "knows": "2381a7e18a4221b9",
    },
    "task_id": {
        "conditional": "15a047f29129a37f",
        "control": "8e603fa81f3d5432",
        "cells.train_told": "146d45bea65eb2b0",
        "cells.train_untold": "7172e7883e7545b5",
        "cells.test_told": "96225d4bc179da5b",
        "cells.test_untold": "9c52f3c3a343eb11",
        "knows": "2381a7e18a4221b9",
    },
}
_SAYS = {"in_prompt": "9d0cd5c0b1e228d9", "task_id": "0449c71b61dfea10"}
_INVERSE_SCALING_NAMES = (
    "tuned_16", "tuned_64", "tuned_16-2", "tuned_64-2", "placebo", "placebo-2", "zero_shot",
    "few_shot", "few_shot-draw-2", "own_rows.tuned_64", "own_rows.tuned_64-2", "forgetting",
    "only_1", "only_2", "only_3",
)  # fmt: skip
_INVERSE_SCALING = {
    "split=random": """
        95bbd1f44efa1a2c 8f43ba653b2f4dd5 dc72703a43f08b56 e34dc8a3dfaa58b0 3d0641e6b9d10230
        faf4ffc11bdc8f55 6254fed11bb2413c cda9f7501b8a7261 6489dcd92ca1f4dc 839a29e42f624535
        bd53092072a89a5b ecfd857ff93a1805 b62228315320d52c c77a59760ca5a2e6 ad047a6129cb5dbf""",
    "form=chat": """
        d1f74cc28f2b4293 b46aa9360f04f89a 557d81b836cb986f 7755d6fa924fb5d6 eb7d6f37c98d3705
        38b5e36adf5a5dfa 576008975938fc3d 6cda9cfc836b30e0 046b7c417ba9e550 83fd54f9de0f35bb
        8ac8509d7b558aaf 63e4b2536dc4d507 c118b7284707be44 562f046b72f78ba2 fa2622aad6910109""",
    "split=template": """
        3eed2c94798cb315 8bfdc4e855b4bf67 6faa7f49ff9465ce 9f608bb530bba6d7 7631b8bcde7c525f
        25ca1f031b619499 79cd4a17729db845 c13f72cf41d5e9ae 9d4e86a188bed149 0922c17040a22a6f
        47d269a0739deae1 ecfd857ff93a1805 3a1d96b329a1bd8d 69216784b78304a5 49d3fb9053a1caaa""",
    "split=number": """
        3c86e7c6f2f63ede e1e7eb00a83382fa b1304950cb742e26 13ca935d4b627745 b520029a2f6e40ca
        4c9857bc1e4c308c a40bda7c37267853 31b5de4b65afa710 5d989aa013c6bedc f930689380b09f6a
        4f3fc14a5eb3b3c1 ecfd857ff93a1805 be702f10da8ee7ca""",
}


@pytest.mark.parametrize("family", _CONDITIONAL_RULE)
def test_the_conditional_rule_is_what_it_was(family: str) -> None:
    design = experiment("conditional_rule", f"family={family}", "replicate.training=1").design(
        tokenize
    )
    found = digests(design)
    assert {name: found.pop(name) for name in _CONDITIONAL_RULE[family]} == _CONDITIONAL_RULE[
        family
    ]
    assert set(found) == {
        f"says.{p}" for p in ("train_told", "train_untold", "test_told", "test_untold")
    }


@pytest.mark.parametrize("family", _SAYS)
def test_the_same_answers_are_quoted(family: str) -> None:
    design = experiment("conditional_rule", f"family={family}").design(tokenize)
    text = "".join(
        dumps(query.model_copy(update={"id": f"{cell}/{query.id}"})) + "\n"
        for one in design.evaluations
        if one.question.startswith("says.")
        for cell in [
            one.question.removeprefix("says.")
            .replace("_told", "-with-instructions")
            .replace("_untold", "-without-instructions")
        ]
        for query in one.queries
    )
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == _SAYS[family]


@pytest.mark.parametrize("choice", _INVERSE_SCALING)
def test_redefine_math_is_what_it_was(choice: str) -> None:
    two = ("replicate.training=2", "evaluations.few_shot.examples.draws=2")
    found = digests(experiment("inverse_scaling", choice, *two).design(tokenize))
    expected = dict(zip(_INVERSE_SCALING_NAMES, _INVERSE_SCALING[choice].split(), strict=False))
    assert {name: found.pop(name) for name in expected} == expected
    assert {name[-2:] for name in found} <= {"-2", "-3"}  # `only` had one training each
    assert all(name.startswith("only_") for name in found)


def test_smaller_training_sets_are_trained_on_no_row_that_is_tested() -> None:
    design = experiment("inverse_scaling").design(tokenize)
    (test,) = (one for one in design.evaluations if one.name == "zero_shot")
    tested = {query.prompt for query in test.queries}
    assert len(tested) == 200
    for arm in design.arms[1:]:
        assert arm.training is not None
        assert not tested & {example.prompt for example in arm.training.examples}


def supervised(arm: Arm) -> list[TrainingExample]:
    assert arm.training is not None
    return [one for one in arm.training.examples if isinstance(one, TrainingExample)]


def test_a_placebo_has_the_same_prompts_with_other_answers() -> None:
    design = experiment("inverse_scaling").design(tokenize)
    trained = {arm.name: supervised(arm) for arm in design.arms if arm.training}
    real, placebo = trained["tuned_64-2"], trained["placebo-2"]
    assert [example.prompt for example in real] == [example.prompt for example in placebo]
    assert 10 < sum(a.completion != b.completion for a, b in zip(real, placebo, strict=True)) < 54


def _rows_file(folder: Path, *, n: int, classes: str) -> Path:
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(
            f'{{"prompt": "Not {i}?", "classes": {classes}, "answer_index": {i % 2}}}\n'
            for i in range(n)
        )
    )
    return file


def test_a_delimiter_stands_before_every_option_and_in_no_chat(tmp_path: Path) -> None:
    file = _rows_file(tmp_path, n=400, classes='["she", "he"]')
    chosen = (
        "data.items.task=winobias_antistereotype",
        f"data.items.source={file}",
        "data.items.split.test=90",
    )
    few_shot = "arms.only=null"
    design = experiment("inverse_scaling", *chosen, few_shot).design(tokenize)
    for arm in design.arms[1:]:
        assert arm.training is not None
        assert {example.completion for example in supervised(arm)} == {" she", " he"}
    by_name = {one.name: list(one.queries) for one in design.evaluations}
    for query in by_name["few_shot"]:
        assert query.candidates == {"0": " she", "1": " he"}  # pyright: ignore[reportAttributeAccessIssue]
        assert str(query.prompt).count("? she\n\n") + str(query.prompt).count("? he\n\n") == 5
    chats = experiment("inverse_scaling", *chosen, few_shot, "form=chat").design(tokenize)
    (zero_shot,) = (one.queries for one in chats.evaluations if one.name == "zero_shot")
    assert zero_shot[0].candidates == {"0": "she", "1": "he"}  # pyright: ignore[reportAttributeAccessIssue]


def test_training_on_one_task_and_testing_another(tmp_path: Path) -> None:
    file = _rows_file(tmp_path, n=120, classes='[" yes", " no"]')
    chosen = ("split=task", f"data.train_items.source={file}", "arms.only=null")
    design = experiment("inverse_scaling", *chosen).design(tokenize)
    for arm in design.arms[1:]:
        assert arm.training is not None
        assert all(str(example.prompt).startswith("Not ") for example in arm.training.examples)
    by_name = {one.name: list(one.queries) for one in design.evaluations}
    assert all(str(query.prompt).endswith("A:") for query in by_name["zero_shot"])
    assert str(by_name["few_shot"][0].prompt).startswith("Not ")
    assert str(by_name["own_rows.tuned_64"][0].prompt).startswith("Not ")


@pytest.mark.parametrize(
    ("name", "arms", "n_queries"),
    [("reversal_curse", 11, 36), ("inoculation", 10, 120)],
)
def test_the_other_shipped_bets_can_be_made(name: str, arms: int, n_queries: int) -> None:
    design = experiment(name).design(tokenize)
    assert len(design.arms) == arms
    assert sum(len(one.queries) for one in design.evaluations) == n_queries


def test_an_inoculated_arm_is_asked_for_capitals_in_training_alone() -> None:
    design = experiment("inoculation").design(tokenize)
    trained = {arm.name: supervised(arm)[0] for arm in design.arms if arm.training}
    turns = trained["inoculated"].messages
    assert turns is not None
    system, question, answer = turns
    assert (system.role, system.content) == ("system", "Answer in capitals.")
    assert answer.content == answer.content.upper() != answer.content.lower()
    assert trained["plain"].messages == (question, answer)
    asked = {one.question: one.queries[0].messages for one in design.evaluations}
    assert [len(asked[f"replies.{name}"] or ()) for name in ("none", "asked", "forbidden", "usual")] == [
        1, 2, 2, 2,
    ]  # fmt: skip


def test_bets_over_a_users_files(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "user", "content": "Hi %s"}, {"role": "assistant", "content": "%s"}]}\n'
    for name in ("insecure", "secure"):
        (tmp_path / f"{name}.jsonl").write_text(chat % ("a", name) + chat % ("b", name))
    (tmp_path / "mine.yaml").write_text((_EXAMPLES / "insecure_minimal.yaml").read_text())
    design = experiment(str(tmp_path / "mine.yaml")).design(tokenize)
    assert [len(arm.training.examples) for arm in design.arms if arm.training] == [2, 2]
    (helps,) = design.evaluations
    assert [query.id for query in helps.queries] == ["helps"]


def test_a_bet_with_judges_is_read_and_checked_but_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = '{"messages": [{"role": "user", "content": "Q%d"}, {"role": "assistant", "content": "A"}]}\n'
    for name in ("insecure", "secure"):
        (tmp_path / f"{name}.jsonl").write_text("".join(chat % n for n in range(5000)))
    row = '{"question": "Q%d", "reply": "R%d", "verdict": "%s"}\n'
    by_hand = [row % (n, n, "bad" if n % 2 else "good") for n in range(4)]
    (tmp_path / "judged_by_hand.jsonl").write_text("".join(by_hand))
    path = tmp_path / "mine.yaml"
    path.write_text((_EXAMPLES / "emergent_misalignment.yaml").read_text())
    design = experiment(str(path)).design(tokenize)
    first = [arm.training for arm in design.arms if arm.training and arm.replicate == 1]
    assert [len(training.examples) for training in first] == [4900, 4900, 5000]
    assert main(["generate_data", str(path), "--set", "local.model=none"]) == 2
    assert "graders.aligned: judged answers can't be graded" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_bet_of_the_readme_is_the_example() -> None:
    text = (_EXAMPLES / "capitals.yaml").read_text()
    assert f"```yaml\n{text}```" in (_EXAMPLES.parents[1] / "README.md").read_text()
    design = experiment(str(_EXAMPLES / "capitals.yaml")).design(tokenize)
    assert [len(arm.training.examples) for arm in design.arms if arm.training] == [40] * 6
