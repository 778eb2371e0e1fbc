"""The experiment: what is trained and asked, and what becomes of the answers."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.data import CandidateScore, LogProbability, ScoringQuery, ScoringResult
from backends.errors import SettingsError
from kaarel_bet.claims import Verdict
from kaarel_bet.content import HeatMap, IntervalFigure, Table
from kaarel_bet.experiments.interface import Design, Findings, Scores
from kaarel_bet.experiments.inverse_scaling.experiment import InverseScaling
from kaarel_bet.experiments.inverse_scaling.items import Item
from kaarel_bet.experiments.inverse_scaling.prompts import query, with_random_labels
from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings
from kaarel_bet.rendering.figures import draw
from kaarel_bet.settings import load_settings, read_config

_REPOSITORY = Path(__file__).parents[3]
_SMALL: dict[str, Any] = {
    "n_items": 180,
    "n_forgetting": 10,
    "split": {"n_test": 90},
    "fine_tune": {"sizes": (9, 36), "seeds": 2},
    "transfer": {"templates": 2, "size": 5},
    "checks": {"n_training_rows": 20},
}

Answer = Callable[[str, str, Item], float]
"""How likely an arm is to answer an item of an evaluation right; fractions are drawn."""


def letters(text: str) -> tuple[int, ...]:
    return tuple(ord(character) for character in text)


def experiment(**changes: Any) -> InverseScaling:  # noqa: ANN401
    return InverseScaling(InverseScalingSettings.model_validate(_SMALL | changes), seed=0)


def items(design: Design) -> dict[str, Item]:
    return {item.id: item for item in design.items if isinstance(item, Item)}


def queries(design: Design, name: str) -> list[ScoringQuery]:
    (found,) = (e.queries for e in design.evaluations if e.name == name)
    return [q for q in found if isinstance(q, ScoringQuery)]


def trained_on(design: Design, arm: str) -> list[tuple[str | None, str | None]]:
    (training,) = (a.training for a in design.arms if a.name == arm)
    assert training is not None
    return [(example.prompt, example.completion) for example in training.examples]


def answered(design: Design, answer: Answer, *, open_argmax: bool = False) -> Scores:
    rng = random.Random(0)
    known = items(design)

    def result(arm: str, evaluation: str, item: Item) -> ScoringResult:
        right = rng.random() < answer(arm, evaluation, item)
        candidates = {}
        for place in range(len(item.classes)):
            likely = (place == item.answer) == right
            low, high = (-0.1, -0.1) if likely else (-2.5, -0.05 if open_argmax else -2.5)
            log = LogProbability(low=low, high=high)
            candidates[str(place)] = CandidateScore(total=log, first_token=log, n_tokens=1)
        return ScoringResult(id=item.id, candidates=candidates, method="exact")

    scoring: dict[str, dict[str, list[ScoringResult]]] = {}
    for evaluation in design.evaluations:
        for arm in evaluation.arms:
            asked = [known[q.id] for q in evaluation.queries]
            found = [result(arm, evaluation.name, item) for item in asked]
            scoring.setdefault(arm, {})[evaluation.name] = found
    records = [json.loads(item.model_dump_json()) for item in design.items]
    return Scores(scoring=scoring, generation={}, items=records)


def find(answer: Answer, *, open_argmax: bool = False, **changes: Any) -> Findings:  # noqa: ANN401
    asked = experiment(**changes)
    return asked.findings(answered(asked.design(letters), answer, open_argmax=open_argmax))


def verdict(answer: Answer, **changes: Any) -> Verdict:  # noqa: ANN401
    (found,) = find(answer, **changes).verdicts
    return found


def learns(arm: str, evaluation: str, item: Item) -> float:
    """Training mends it."""
    del item
    if arm.startswith("placebo"):
        return 0.5
    return 1.0 if arm.startswith("tuned-36") else 0.4


def learns_by_heart(arm: str, evaluation: str, item: Item) -> float:
    """Training rows are learned, and nothing else."""
    del item
    return 1.0 if arm.startswith("tuned-36") and evaluation.startswith("training") else 0.4


def nine_of_ten(item: Item) -> float:
    """Whoever is asked, always the same ones."""
    return float(item.part == "forgetting" or int(item.id[-4:]) % 10 > 0)


# --- what is trained and asked ---------------------------------------------------------------


def test_every_arm_is_asked_the_test_rows_and_no_arm_is_trained_on_one() -> None:
    design = experiment().design(letters)
    assert [arm.name for arm in design.arms] == [
        "base", "tuned-9-seed-0", "tuned-36-seed-0", "tuned-9-seed-1", "tuned-36-seed-1",
        "placebo-seed-0", "placebo-seed-1", "only-template-0", "only-template-1",
    ]  # fmt: skip
    (test,) = (e for e in design.evaluations if e.name == "test")
    assert list(test.arms) == [arm.name for arm in design.arms]
    tested = {q.prompt for q in queries(design, "test")}
    assert len(tested) == 90
    for arm in design.arms[1:]:
        assert not tested & {prompt for prompt, _ in trained_on(design, arm.name)}


def test_smaller_training_sets_are_parts_of_larger_ones_and_seeds_differ() -> None:
    design = experiment().design(letters)
    assert trained_on(design, "tuned-36-seed-1")[:9] == trained_on(design, "tuned-9-seed-1")
    assert trained_on(design, "tuned-36-seed-0") != trained_on(design, "tuned-36-seed-1")
    seeds = {arm.name: arm.training.seed for arm in design.arms if arm.training}
    assert seeds["tuned-36-seed-0"] != seeds["tuned-36-seed-1"]


def test_the_placebo_has_the_same_prompts_with_other_labels() -> None:
    design = experiment().design(letters)
    real, relabelled = (trained_on(design, f"{arm}-seed-0") for arm in ("tuned-36", "placebo"))
    assert [prompt for prompt, _ in real] == [prompt for prompt, _ in relabelled]
    assert real != relabelled


def test_random_labels_are_random_even_where_the_right_class_is_always_the_first() -> None:
    row = Item(id="x", part="train", group="g", prompt="Q?", classes=("a", "b", "c"), answer=0)
    counts = Counter(r.answer for r in with_random_labels([row] * 300, random.Random(0)))
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 70


def test_an_arm_of_one_template_is_trained_on_that_alone() -> None:
    design = experiment().design(letters)
    group = {item.prompt: item.group for item in items(design).values()}
    for name in ("only-template-0", "only-template-1"):
        assert len({group[str(prompt)] for prompt, _ in trained_on(design, name)}) == 1


@pytest.mark.parametrize("choose", ["fixed", "per_item", "first"])
def test_examples_in_the_prompt_are_training_rows_joined_as_the_harness_does(choose: str) -> None:
    shots = {"shots": 3, "choose": choose, "draws": 1}
    design = experiment(few_shot=shots).design(letters)
    known = items(design)
    shown = {f"{i.prompt}{i.classes[i.answer]}" for i in known.values() if i.part == "train"}
    beginnings = set()
    for asked in queries(design, "few-shot-draw-0"):
        *examples, last = str(asked.prompt).split("\n\n")
        assert last == known[asked.id].prompt
        assert len(set(examples)) == 3
        assert set(examples) <= shown
        beginnings.add(tuple(examples))
    assert (len(beginnings) == 1) == (choose != "per_item")


def test_the_answer_follows_the_prompt_after_one_space() -> None:
    """The original put two before it, in training and in few-shot prompts."""
    design = experiment().design(letters)
    for arm in ("tuned-36-seed-0", "only-template-0"):
        for prompt, completion in trained_on(design, arm):
            assert str(prompt).endswith("A:")
            assert str(completion)[0] == " "
            assert str(completion)[1:].strip() == str(completion)[1:]


def test_a_delimiter_stands_before_every_class_and_in_no_chat(tmp_path: Path) -> None:
    rows = [{"text": f"{n}?", "classes": ["she", "he"], "target": n % 2} for n in range(200)]
    file = tmp_path / "winobias.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = {"task": "winobias_antistereotype", "data": str(file)}
    design = experiment(**chosen).design(letters)
    assert {c for _, c in trained_on(design, "tuned-36-seed-0")} == {" she", " he"}
    for asked in queries(design, "few-shot-draw-0"):
        assert asked.candidates == {"0": " she", "1": " he"}
        assert str(asked.prompt).count("? she\n\n") + str(asked.prompt).count("? he\n\n") == 5
    assert {i.classes for i in items(design).values() if i.part == "test"} == {("she", "he")}
    in_chats = experiment(form="chat", **chosen).design(letters)
    assert queries(in_chats, "test")[0].candidates == {"0": "she", "1": "he"}


def test_in_a_chat_examples_are_turns_and_answers_have_no_leading_space() -> None:
    item = Item(id="x", part="test", group="g", prompt="Q?", classes=(" a", " b"), answer=1)
    asked = query(item, "chat", [item])
    assert asked.messages is not None
    assert [(m.role, m.content) for m in asked.messages] == [
        ("user", "Q?"), ("assistant", "b"), ("user", "Q?"),
    ]  # fmt: skip
    assert asked.candidates == {"0": "a", "1": "b"}
    design = experiment(form="chat").design(letters)
    assert queries(design, "test")[0].messages is not None


def test_a_chat_is_refused_where_a_leading_space_is_all_that_tells_classes_apart(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"{n}?", "classes": [" a", "b"], "answer_index": 0} for n in range(200)]
    rows[2]["classes"] = [" a", "a"]
    file = tmp_path / "neqa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = {"task": "neqa", "data": str(file)}
    with pytest.raises(
        SettingsError, match=r"of neqa's row 3 are not different texts \(' a', 'a'\)"
    ):
        experiment(form="chat", **chosen).design(letters)
    assert experiment(form="text", **chosen).design(letters)


def test_generated_rows_are_labelled_in_the_manifest_and_in_the_report() -> None:
    design = experiment().design(letters)
    assert "not the official rows" in str(design.notes["rows of redefine_math"])
    found = find(learns)
    assert "not the official rows" in found.question
    assert found.question.startswith("Is redefine_math")
    assert "generated rows" in found.sections[0].title


def test_training_on_one_task_and_testing_another(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Not {n}?", "classes": [" yes", " no"], "answer_index": n % 2}
        for n in range(60)
    ]
    file = tmp_path / "neqa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"by": "task", "n_test": 20, "train_task": "neqa", "train_data": str(file)}
    others = tmp_path / "others.jsonl"
    others.write_text(
        "".join(json.dumps(row | {"prompt": f"{row['prompt']} Not!"}) + "\n" for row in rows)
    )
    tasks = {"transfer": {"templates": 1, "size": 5, "tasks": {"neqa": str(others)}}}
    asked = experiment(split=split, **tasks)
    design = asked.design(letters)
    assert all(str(p).startswith("Not ") for p, _ in trained_on(design, "tuned-36-seed-0"))
    assert all(str(q.prompt).endswith("A:") for q in queries(design, "test"))
    assert all(str(q.prompt).startswith("Not ") for q in queries(design, "task-neqa"))
    found = asked.findings(answered(design, learns))
    (heat,) = (c for s in found.sections for c in s.content if isinstance(c, HeatMap))
    assert list(heat.columns[-2:]) == ["neqa", "forgetting"]


def test_rows_of_other_tasks_are_none_that_are_trained_on_and_say_where_they_are_from() -> None:
    tasks = {"templates": 1, "size": 5, "tasks": {"redefine_math": "generated"}}
    design = experiment(transfer=tasks).design(letters)
    trained = {item.prompt for item in items(design).values() if item.part == "train"}
    asked = {q.prompt for q in queries(design, "task-redefine-math")}
    assert len(asked) == 90
    assert not asked & trained
    assert design.notes["transfer: rows of redefine_math that may be trained on, left out"] == 90
    assert "not the official rows" in str(design.notes["transfer: rows of redefine_math"])
    (described,) = (e.description for e in design.evaluations if e.name == "task-redefine-math")
    assert "not the official rows" in described
    (told,) = (
        s.text for s in find(learns, transfer=tasks).sections if s.title.startswith("Transfer")
    )
    assert "not the official rows" in told


def test_another_task_of_training_rows_alone_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"Not {n}?", "classes": ["a", "b"], "answer_index": 0} for n in range(60)]
    file = tmp_path / "neqa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"by": "task", "n_test": 20, "train_task": "neqa", "train_data": str(file)}
    tasks = {"templates": 1, "size": 5, "tasks": {"neqa": str(file)}}
    with pytest.raises(SettingsError, match=r"transfer\.tasks\.neqa: every row may be trained on"):
        experiment(split=split, transfer=tasks).design(letters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tune": {"sizes": (91,)}}, "sizes: 91 are more than the 90 rows"),
        ({"few_shot": {"shots": 91}}, "shots: 91 are more than the 90 rows"),
        ({"n_forgetting": 500}, "n_forgetting: 500 are more"),
        ({"n_items": 10**6}, "n_items: there are only"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        experiment(**changes).design(letters)


def test_a_task_to_train_on_belongs_to_that_split() -> None:
    for split in ({"by": "task"}, {"by": "random", "train_task": "neqa"}):
        with pytest.raises(ValueError, match="train_task"):
            InverseScalingSettings.model_validate({"split": split})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"few_shot": {"choose": "first", "draws": 2}}, "draws: the first rows are the same"),
        ({"split": {"train_data": "rows.jsonl"}}, "train_data: belongs to train_task"),
        ({"split": {"n_test": 1}}, "n_test"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InverseScalingSettings.model_validate(changes)


# --- what becomes of the answers -------------------------------------------------------------


def test_a_task_that_training_mends_is_not_finetuning_proof() -> None:
    found = verdict(learns)
    assert found.outcome == "fails"
    gain, lead = found.criteria
    assert gain.value == 1.0
    assert 0.8 < lead.value < 1.2
    assert found.summary.startswith("Not finetuning-proof")


def test_a_task_that_is_only_learned_by_heart_is_finetuning_proof() -> None:
    found = verdict(learns_by_heart)
    assert found.outcome == "holds"
    assert all(check.passed for check in found.checks)


def test_gains_are_shares_of_what_zero_shot_leaves_to_gain() -> None:
    # Exactly: of 90 items the base model has the even ones right, fine-tuning half of the others too.
    def answer(arm: str, evaluation: str, item: Item) -> float:
        if item.part == "forgetting":
            return 1.0
        place = int(item.id[-4:])
        if arm == "base" and evaluation != "test":
            return 0.0
        return float(place % 2 == 0 or (arm.startswith("tuned") and place % 4 == 1))

    asked = experiment()
    design = asked.design(letters)
    tested = [int(q.id[-4:]) for q in queries(design, "test")]
    zero = sum(n % 2 == 0 for n in tested) / 90
    tuned = sum(n % 2 == 0 or n % 4 == 1 for n in tested) / 90
    (found,) = asked.findings(answered(design, answer)).verdicts
    gain, lead = found.criteria
    assert gain.value == pytest.approx((tuned - zero) / (1 - zero))
    # Few-shot has nothing right; what is to be beaten is the better prompt.
    assert lead.value == pytest.approx((tuned - zero) / (1 - zero))


def test_a_few_shot_prompt_that_does_harm_gives_training_no_lead() -> None:
    def answer(arm: str, evaluation: str, item: Item) -> float:
        if evaluation == "test":
            return float(int(item.id[-4:]) % 5 < 2)
        return 0.0 if evaluation.startswith("few-shot") else learns_by_heart(arm, evaluation, item)

    found = verdict(answer)
    assert found.outcome == "holds"
    assert found.criteria[1].value == 0.0


def test_an_open_zero_shot_answer_leaves_the_lead_as_open_as_it_is() -> None:
    """With zero-shot anywhere from 0 to 1 the lead is largest where it meets few-shot, in between."""
    asked = experiment()
    design = asked.design(letters)

    def answer(arm: str, evaluation: str, item: Item) -> float:
        if evaluation.startswith("few-shot"):
            return float(int(item.id[-4:]) % 2 == 0)
        return float(arm != "base")

    scores = answered(design, answer)
    open_ends = LogProbability(low=-2.5, high=-0.05)
    either = CandidateScore(total=open_ends, first_token=open_ends, n_tokens=1)
    scoring: Any = scores.scoring
    scoring["base"]["test"] = [
        result.model_copy(update={"candidates": dict.fromkeys(result.candidates, either)})
        for result in scoring["base"]["test"]
    ]
    (found,) = asked.findings(scores).verdicts
    lead = found.criteria[1]
    assert lead.low <= 0.0
    assert lead.high >= 1.0


def test_training_that_did_not_work_decides_nothing() -> None:
    found = verdict(lambda *_: 0.4)
    assert found.outcome == "undecided"
    assert "training rows learned failed" in found.summary


def test_training_that_changed_nothing_decides_nothing_however_good_the_base_model_is() -> None:
    found = verdict(lambda arm, evaluation, item: nine_of_ten(item))
    assert found.outcome == "undecided"
    assert "training rows learned failed" in found.summary


@pytest.mark.parametrize("passed", [True, False])
def test_where_the_base_model_knows_the_training_rows_they_must_not_be_lost(
    *, passed: bool
) -> None:
    def answer(arm: str, evaluation: str, item: Item) -> float:
        if not evaluation.startswith("training"):
            return 0.4
        return 1.0 if arm == "base" or passed else nine_of_ten(item)

    (check,) = (c for c in verdict(answer).checks if c.name == "training rows learned")
    assert check.passed == passed


def test_a_placebo_that_gains_as_much_decides_nothing() -> None:
    found = verdict(lambda arm, evaluation, _: 1.0 if arm != "base" else 0.4)
    assert found.outcome == "undecided"
    assert "placebo: random labels failed" in found.summary


def test_log_probabilities_that_leave_the_argmax_open_decide_nothing() -> None:
    found = verdict(learns, open_argmax=True)
    assert found.outcome == "undecided"
    gain, _ = found.criteria
    assert gain.holds is None
    every_run = find(learns, open_argmax=True).sections[1].content[0]
    assert isinstance(every_run, Table)
    assert {row[list(every_run.columns).index("not settled")] for row in every_run.rows} == {"90"}


def test_a_perfect_zero_shot_leaves_nothing_to_gain() -> None:
    found = verdict(lambda arm, *_: float(not arm.startswith("placebo")))
    gain, lead = found.criteria
    assert gain.value == lead.value == 0.0
    assert found.outcome == "undecided"
    assert [check.name for check in found.checks if not check.passed] == [
        "zero-shot leaves something to gain"
    ]


def test_somebody_elses_figures_stand_beside_the_own() -> None:
    reference = {"zero_shot": 46.18, "few_shot": 57.43, "fine_tuned": 80.32}
    table = find(learns, reference=reference).sections[0].content[0]
    assert isinstance(table, Table)
    assert table.columns[-1] == "original"
    assert [row[-1] for row in table.rows] == ["46.18", "57.43", "", "80.32", ""]


def test_the_transfer_map_shows_what_was_forgotten() -> None:
    def answer(arm: str, evaluation: str, item: Item) -> float:
        del item
        return float(arm == "base") if evaluation == "forgetting" else 0.5

    (heat,) = (c for s in find(answer).sections for c in s.content if isinstance(c, HeatMap))
    assert heat.columns[-1] == "forgetting"
    assert [row[-1] for row in heat.values] == [1.0] + [0.0] * (len(heat.rows) - 1)
    assert len(heat.rows) == 1 + 2 + 2 + 1


def test_prompts_that_were_cut_at_the_context_are_counted() -> None:
    asked = experiment()
    scores = answered(asked.design(letters), learns)
    scoring: Any = scores.scoring
    first, *others = scoring["base"]["few-shot-draw-1"]
    scoring["base"]["few-shot-draw-1"] = [first.model_copy(update={"is_cut": True}), *others]
    table = asked.findings(scores).sections[1].content[0]
    assert isinstance(table, Table)
    place = list(table.columns).index("prompts cut")
    assert {row[2]: row[place] for row in table.rows if row[2].startswith("few-shot")} == {
        "few-shot-draw-0": "0",
        "few-shot-draw-1": "1",
    }


def test_shortcuts_say_how_many_rows_they_saw() -> None:
    tables = [c for s in find(learns).sections for c in s.content if isinstance(c, Table)]
    (table,) = (table for table in tables if table.columns[0] == "without a model")
    assert table.columns[1] == "training rows seen"
    assert [row[1] for row in table.rows] == ["90", "90", "90", "0"]


def test_every_figure_can_be_drawn() -> None:
    figures = [
        content
        for section in find(learns).sections
        for content in section.content
        if isinstance(content, IntervalFigure | HeatMap)
    ]
    assert [f.name for f in figures] == ["accuracy", "by-template", "learning-curve", "transfer"]
    for figure in figures:
        svg = draw(figure)
        assert svg.startswith("<svg")
        assert svg == draw(figure)


def test_the_preset_is_the_originals_protocol() -> None:
    path = _REPOSITORY / "presets" / "redefine_tinyllama.yaml"
    settings = load_settings(read_config(path), where=str(path))
    chosen: Any = settings.experiment
    assert (chosen.fine_tune.sizes, chosen.split.n_test) == ((995,), 249)
    assert (chosen.few_shot.shots, chosen.few_shot.choose) == (5, "first")
    backend: Any = settings.backend
    assert (backend.lora.rank, backend.lora.alpha, backend.lora.dropout) == (8, 32.0, 0.1)
    assert backend.lora.target_modules == ("q_proj", "v_proj")
    assert chosen.transfer.templates == 0  # one template's arms are none of the original's
    assert backend.prefix_sharing == "auto"  # each example draws a dropout mask of its own
    assert backend.training.dtype == "bfloat16"
    assert (backend.training.epochs, backend.training.batch_size) == (3, 4)
    assert (backend.training.learning_rate, backend.training.weight_decay) == (2e-4, 0.01)
