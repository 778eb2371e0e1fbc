"""The sections of every report, of runs made by hand."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pytest

from backends.data import CandidateScore, GenerationResult, LogProbability, ScoringResult
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import (
    LOG_PROBABILITY,
    SHARE,
    Observation,
    Observations,
    Question,
    Vocabulary,
)
from kaarel_bet.bet.report import further_sections, sections
from kaarel_bet.bet.report_options import BASELINES, Item, baseline_answers
from kaarel_bet.bet.schema import Bet
from kaarel_bet.content import HeatMap, IntervalFigure, PointFigure, Section, Table, Transcript
from kaarel_bet.experiments.interface import Answers, Asked, Row
from kaarel_bet.manifest import ArmEntry, EvaluationEntry
from kaarel_bet.rendering.document import Document
from kaarel_bet.rendering.files import render

Kind = TypeVar("Kind")


def bet(**keys: Any) -> Bet:
    least = {"bet": 1, "name": "b", "question": "?"}
    return Bet.model_validate_json(json.dumps(least | keys))


def model(arm: str, replicate: int = 1, role: str = "treatment") -> ArmEntry:
    return ArmEntry(
        name=arm if replicate == 1 else f"{arm}-{replicate}",
        arm=arm,
        replicate=replicate,
        role=role,
        description="",
        training_file=None,
        validation_file=None,
        loss_on=None,
        starts_from=None,
    )


def entry(
    question: str, kind: str = "scoring", table: str | None = None, draw: int = 1
) -> EvaluationEntry:
    record = {"name": question, "question": question, "description": "", "kind": kind, "arms": []}
    record |= {"queries_file": "", "n_queries": 1, "draw": draw, "table": table}
    return EvaluationEntry.model_validate_json(json.dumps(record))


def observed(
    asked: tuple[ArmEntry, EvaluationEntry],
    quantity: str,
    values: Sequence[float],
    candidate: str = "",
    rows: Sequence[str] | None = None,
) -> Iterator[Observation]:
    arm, evaluation = asked
    for place, value in enumerate(values):
        row = rows[place] if rows else f"row-{place}"
        yield Observation(
            arm=arm.arm,
            replicate=arm.replicate,
            question=evaluation.question,
            draw=evaluation.draw,
            row=row,
            part=place if rows and len(set(rows)) < len(rows) else 1,
            cluster=row,
            quantity=quantity,
            candidate=candidate,
            low=value,
            high=value,
        )


def only(kind: type[Kind], found: Section) -> Kind:
    (content,) = [content for content in found.content if isinstance(content, kind)]
    return content


# --- candidates and sampled answers ----------------------------------------------------------------

_TALK = bet(
    parameters={"threshold": 1e-4},
    intervals={"method": "bootstrap"},  # of two trainings and two rows, t knows next to nothing
    prompts={"told": "{name}?", "untold": "{name}!"},
    arms={
        "rule": {"train": [{"rows": "people", "prompt": "told", "answer": "a"}]},
        "other": {
            "role": "control",
            "train": [{"rows": "people", "prompt": "untold", "answer": "a"}],
        },
    },
    evaluations={
        "cells": {
            "rows": "people",
            "prompts": ["told", "untold"],
            "candidates": {"country": "a", "capital": "b", "wrong": "c"},
        },
        "says": {
            "rows": "people",
            "prompt": "told",
            "generate": {"max_tokens": 3, "temperature": 1.0, "samples": 2},
            "graders": {"named": {"contains": "a"}},
        },
    },
    claims={
        "learns": {
            "criteria": ["mean(P(capital | cells.told,\n rule)) > threshold"],
            "readings": [{"replace": {"mean": ["mean", "least"]}}],
        }
    },
    report={
        "also": [
            "mean(named(says, rule))",
            {"expression": "mean(named(says, other))", "published": 0.5},
        ]
    },
)
_MODELS = [model("base"), model("rule"), model("rule", 2), model("other", role="control")]


def talk(*, capital: float = 0.01) -> list[Section]:
    """Two rows; the capital is a tenth as likely in the second, and half as likely in replicate 2."""
    found: list[Observation] = []
    asked: list[Asked] = []
    for arm in _MODELS:
        for name in ("cells.told", "cells.untold"):
            pair = (arm, entry(name, table="people"))
            asked.append(Asked(*pair, results=()))
            level = capital / arm.replicate if arm.arm == "rule" else 1e-9
            for candidate, values in (
                ("country", [0.5, 0.25]),
                ("capital", [level, level / 10]),
                ("wrong", [0.1, 0.1]),
            ):
                found += observed(pair, "logP", [math.log(v) for v in values], candidate)
        pair = (arm, entry("says", "generation", "people"))
        results = [
            GenerationResult(id=f"row-{i}", prompt=f"<{i}>", texts=(f" {arm.name} {i}\n", "x"))
            for i in range(3)
        ]
        asked.append(Asked(*pair, results=results))
        rows = [f"row-{place // 2}" for place in range(6)]
        found += observed(pair, "named", [1, 0, 1, 1, 0, 0], rows=rows)
    arms = frozenset({"base", "rule", "other"})
    cells = Question(arms, {"logP": LOG_PROBABILITY}, ("country", "capital", "wrong"), "people")
    questions = {"cells.told": cells, "cells.untold": cells}
    questions["says"] = Question(arms, {"named": SHARE}, (), "says")
    vocabulary = Vocabulary(("base", "rule", "other"), questions, _TALK.parameters)
    observations = Observations(found)
    judge = Judge(_TALK, vocabulary, observations, {}, 0)
    return [*sections(_TALK, Answers(asked), judge), *further_sections(judge)]


def test_every_arm_and_question_has_its_mean_probabilities() -> None:
    compact, training = [c for c in talk()[0].content if isinstance(c, Table)]
    assert compact.compact
    assert compact.columns == ("arm", "role", "asked", "country", "capital", "wrong")
    # Of rows and trainings: (0.01 + 0.001 + 0.005 + 0.0005) / 4
    assert compact.rows[2] == ("rule", "treatment", "cells.told", "0.38", "0.0041", "0.1")
    assert [row[:3] for row in compact.rows[::2]] == [
        ("base", "", "cells.told"),
        ("rule", "treatment", "cells.told"),
        ("other", "control", "cells.told"),
    ]
    assert not training.compact
    assert ("rule", "treatment", "cells.told", "2", "0.38", "0.0028", "0.1") in training.rows
    assert len(training.rows) == 8


def test_every_row_of_every_training_is_a_point_of_what_criteria_name() -> None:
    figure = only(PointFigure, talk()[0])
    assert figure.log
    assert [panel.title for panel in figure.panels] == ["cells.told", "cells.untold"]
    told = figure.panels[0].groups
    assert list(told) == ["base", "rule", "other"]
    assert told["rule"].keys() == {"P(capital)"}
    points = told["rule"]["P(capital)"]
    assert points == pytest.approx([math.log10(p) for p in (0.01, 0.001, 0.005, 0.0005)])
    assert figure.thresholds == {"threshold 0.0001": -4.0}


def test_grades_are_on_a_linear_axis_with_samples_averaged() -> None:
    section = talk()[1]
    figure = only(PointFigure, section)
    assert not figure.log
    assert figure.panels[0].groups["rule"]["named"] == [0.5, 1.0, 0.0] * 2
    compact = next(c for c in section.content if isinstance(c, Table))
    arm, _, asked, cell = compact.rows[1]
    assert (arm, asked) == ("rule", "says")
    assert cell.startswith("0.5 (")


def titled(found: Sequence[Section], title: str) -> Section:
    return next(one for one in found if one.title.startswith(title))


def test_the_most_extreme_answers_are_told() -> None:
    table = only(Table, titled(talk(), "The most extreme answers"))
    rows = [row for row in table.rows if row[1] == "rule"]
    assert [(row[0], row[4], row[6]) for row in rows] == [
        ("named", "0", "x"),
        ("named", "1", "rule 0"),
    ]


def test_answers_are_quoted_with_their_grades() -> None:
    quoted = titled(talk(), "Sample prompts and answers").content
    assert all(isinstance(one, Transcript) for one in quoted)
    assert [one.title for one in quoted if isinstance(one, Transcript)] == [
        "says: row-0",
        "says: row-1",
    ]
    second = quoted[1]
    assert isinstance(second, Transcript)
    assert second.prompt == "<1>"
    assert second.answers == {
        "base": "base 1 [named 1]",
        "rule": "rule 1 [named 1]",
        "other": "other 1 [named 1]",
    }


def test_further_figures_stand_beside_what_was_published() -> None:
    table = only(Table, titled(talk(), "Further figures"))
    assert table.columns == ["expression", "value", "interval", "published"]
    assert [(row[0], row[1], row[3]) for row in table.rows] == [
        ("mean(named(says, rule))", "0.5", ""),
        ("mean(named(says, other))", "0.5", "0.5"),
    ]


@pytest.mark.parametrize(
    ("capital", "words"),
    [
        (0.01, "All 2 readings come out the same: holds."),
        (0.0005, "**The 2 readings disagree**"),
    ],
)
def test_it_is_said_whether_readings_agree(capital: float, words: str) -> None:
    section = titled(talk(capital=capital), "Other readings")
    assert words in section.text
    readings, carried = [content for content in section.content if isinstance(content, Table)]
    assert len(readings.rows) == 2
    assert carried.rows[0][0].startswith(
        "the largest share of mean(P(capital | cells.told, rule)) is "
    )


# --- multiple choice -----------------------------------------------------------------------------------

_CHOICE = bet(
    prompts={"ask": {"text": "{text}"}},
    arms={
        "tuned": {
            "train": [{"rows": "items.train", "prompt": "ask", "answer": "a", "take": [2, 4]}]
        },
        "only": {
            "train": [
                {
                    "rows": "items.train",
                    "prompt": "ask",
                    "answer": "a",
                    "each": {"column": "kind", "at_most": 1},
                }
            ]
        },
    },
    evaluations={
        "zero_shot": {"rows": "items.test", "prompt": "ask", "options": "o", "answer": "right"},
        "few_shot": {
            "rows": "items.test",
            "prompt": "ask",
            "options": "o",
            "answer": "right",
            "arms": ["base"],
            "examples": {"rows": "items.train", "n": 3, "answer": "a", "draws": 2},
        },
        "far": {
            "rows": "elsewhere",
            "prompt": "ask",
            "options": "o",
            "answer": "right",
            "arms": ["base", "tuned_2"],
        },
    },
    claims={"proof": {"criteria": ["mean(acc(zero_shot, tuned_4)) < 0.5"]}},
    checks={"no_leak": {"between": ["items.train", "items.test"], "on": "text"}},
    report={"by": "kind", "baselines": ["most_frequent_place", "most_frequent_answer_by_group"]},
)


def row(name: str, text: str, options: Sequence[str], right: int, kind: str) -> Row:
    return {"id": name, "text": text, "o": list(options), "right": right, "kind": kind}


_TRAIN = [
    row("t-1", "Add 1 and 2", (" 3", " 4"), 0, "sum"),
    row("t-2", "Add 2 and 2", (" 5", " 4"), 1, "sum"),
    row("t-3", "what is this", (" x", " y"), 1, "(other)"),
]
_TEST = [
    row("e-1", "ADD  1 and 2", (" 3", " 4"), 0, "sum"),
    row("e-2", "Add 7 and 2", (" 3", " 9"), 1, "sum"),
    row("e-3", "Double 2 and 1", (" 6", " 5"), 0, "(other)"),
]
_FAR = [{"id": "f-1", "text": "?", "o": [" p", " q"], "right": 1}]


def scores(rows: Sequence[Row], right: Sequence[float]) -> list[ScoringResult]:
    """The right option has probability 0.8 of what the options have where it is chosen, else 0.2."""

    def score(probability: float) -> CandidateScore:
        log = LogProbability.exact(math.log(probability / 1e6))
        return CandidateScore(total=log, first_token=log, n_tokens=1)

    return [
        ScoringResult(
            id=one["id"],
            candidates={
                str(place): score(0.8 if (place == one["right"]) == bool(chosen) else 0.2)
                for place in range(2)
            },
            method="exact",
            is_cut=one["id"] == "e-2",
        )
        for one, chosen in zip(rows, right, strict=True)
    ]


def choice() -> dict[str, Section]:
    found: list[Observation] = []
    asked: list[Asked] = []
    said: list[tuple[ArmEntry, EvaluationEntry, list[float]]] = [
        (model("base"), entry("zero_shot", table="items.test"), [1, 0, 0]),
        (model("base"), entry("few_shot", table="items.test"), [1, 0, 1]),
        (model("base"), entry("few_shot", table="items.test", draw=2), [1, 1, 1]),
        (model("base"), entry("far", table="elsewhere"), [1]),
        (model("tuned_2"), entry("zero_shot", table="items.test"), [1, 1, 0]),
        (model("tuned_2"), entry("far", table="elsewhere"), [0]),
        (model("tuned_4"), entry("zero_shot", table="items.test"), [1, 1, 1]),
        (model("tuned_4", 2), entry("zero_shot", table="items.test"), [0, 1, 1]),
        (model("only_1"), entry("zero_shot", table="items.test"), [0, 0, 0]),
    ]
    tables = {"items.train": _TRAIN, "items.test": _TEST, "elsewhere": _FAR}
    for arm, evaluation, right in said:
        rows = tables[evaluation.table or ""]
        asked.append(Asked(arm, evaluation, scores(rows, right)))
        for quantity in ("acc", "acc_norm"):
            ids = [one["id"] for one in rows]
            found += observed((arm, evaluation), quantity, right, rows=ids)
    arms = ("base", "tuned_2", "tuned_4", "only_1")
    ranges = {"acc": SHARE, "acc_norm": SHARE}
    questions = {
        "zero_shot": Question(frozenset(arms), ranges, (), "items.test"),
        "few_shot": Question(frozenset({"base"}), ranges, (), "items.test"),
        "far": Question(frozenset({"base", "tuned_2"}), ranges, (), "elsewhere"),
    }
    observations = Observations(found)
    judge = Judge(_CHOICE, Vocabulary(arms, questions), observations, tables, 0)
    answers = Answers(asked, tables)
    return {one.title: one for one in sections(_CHOICE, answers, judge)}


@pytest.fixture(scope="module")
def chosen() -> dict[str, Section]:
    return choice()


def test_accuracies_are_means_over_runs(chosen: dict[str, Section]) -> None:
    table = only(Table, chosen["Accuracy"])
    assert table.columns == ("arm", "asked", "runs", "acc %", "interval", "acc_norm %")
    shown = {(row[0], row[1]): (row[2], row[3]) for row in table.rows}
    assert shown["base", "few_shot"] == ("2", "83.3")
    assert shown["tuned_4", "zero_shot"] == ("2", "83.3")
    assert shown["tuned_2", "far"] == ("1", "0.0")


def test_every_run_has_its_figures(chosen: dict[str, Section]) -> None:
    runs, comparisons = [c for c in chosen["Every run"].content if isinstance(c, Table)]
    rows = [dict(zip(runs.columns, row, strict=True)) for row in runs.rows]
    assert len(rows) == 9
    zero = rows[0]
    assert (zero["acc %"], zero["stderr"], zero["prompts cut"]) == ("33.3", "33.3", "1")
    # Sure by 0.8 of each, right of a third; errors are 2 * 0.2^2 and twice 2 * 0.8^2.
    assert (zero["ECE"], zero["Brier"]) == ("0.467", "0.880")
    # Row 1's right option 0, row 2's wrong option 0, not row 3's
    assert zero["chose option 0 %"] == "66.7"
    assert zero["Wilson interval"] == "6.1 to 79.2"
    assert [row["run"] for row in rows if row["asked"] == "few_shot"] == ["1", "draw 2"]
    told = {row[0]: (row[1], row[3]) for row in comparisons.rows}
    # Both runs gain rows; the second loses one of the base's.
    assert told["tuned_4 - base"] == ("+50.0", "2, 0, 0.5; 2, 1, 1")
    assert told["base, few_shot - base"][0] == "+50.0"


def test_accuracy_by_group_and_the_map_of_all_arms(chosen: dict[str, Section]) -> None:
    section = chosen["Accuracy by kind"]
    legend = only(Table, section)
    assert legend.rows == [("K1", "sum", "2", "50.0"), ("K2", "(other)", "1", "100.0")]
    groups = only(IntervalFigure, section).groups
    assert groups["K1"]["tuned_2"].value == 1.0
    assert groups["K2"]["base, few_shot"].value == 1.0
    assert "only_1" not in groups["K1"]
    heat = only(HeatMap, chosen["Transfer and forgetting"])
    assert heat.rows == ["base", "tuned_2", "tuned_4", "only_1"]
    assert heat.columns == ["K1", "K2", "far"]
    assert heat.values[1] == [1.0, 0.0, 0.0]
    assert heat.values[2][:2] == [0.75, 1.0]
    assert math.isnan(heat.values[2][2])


def test_the_learning_curve_has_every_size_and_few_shot_at_its_own(
    chosen: dict[str, Section],
) -> None:
    figure = only(IntervalFigure, chosen["Accuracy against the number of training rows"])
    values = {n: {k: e.value for k, e in group.items()} for n, group in figure.groups.items()}
    third = pytest.approx(1 / 3)
    assert list(values) == ["0", "2", "3", "4"]
    assert values["0"] == {"tuned": third}
    assert values["3"] == {"few_shot": pytest.approx(5 / 6)}
    assert values["4"] == {"tuned": pytest.approx(5 / 6)}


def test_what_needs_no_model(chosen: dict[str, Section]) -> None:
    leakage, baselines = chosen["Leakage audit and shortcuts"].content
    assert isinstance(leakage, Table)
    assert isinstance(baselines, Table)
    assert [row[1:] for row in leakage.rows] == [("1", "33%"), ("2", "67%"), ("2", "67%")]
    assert [(row[0], row[1], row[2]) for row in baselines.rows] == [
        ("most frequent place", "3", "33.3"),
        ("most frequent answer by group", "3", "66.7"),
        ("always option 0", "0", "66.7"),
    ]


def item(*options: str, answer: int, group: str = "g") -> Item:
    return Item("i", options, answer, group)


def test_never_3_for_pi_is_found_without_a_model() -> None:
    key = BASELINES["most_frequent_answer_by_group"]
    train = [item(" 3", " 7", answer=1, group="π")] * 3
    train += [item(" 3", " 1", answer=0, group="÷")] * 3
    test = [
        item(" 3", " 9", answer=1, group="π"),
        item(" 8", " 3", answer=0, group="π"),
        item(" 3", " 9", answer=0, group="÷"),
        item(" 3", " 9", answer=0, group="π"),
    ]
    assert baseline_answers(key, train, test) == [True, True, True, False]


def test_baselines_know_the_training_rows_alone() -> None:
    train = [item("a", "b", answer=1)] * 2
    test = [item("b", "a", answer=0), item("c", "d", answer=1)]
    place, text, _ = BASELINES.values()
    assert baseline_answers(place, train, test) == [False, True]
    assert baseline_answers(text, train, test) == [True, False]  # of equals the first


def test_all_of_it_can_be_rendered(chosen: dict[str, Section]) -> None:
    document = Document("b", "?", [], [*talk(), *chosen.values()])
    figures, markdown, html = render(document)
    assert figures.keys() == {
        *("probabilities-cells", "grades-says", "accuracy"),
        *("by-kind", "transfer", "learning-curve"),
    }
    for name, svg in figures.items():
        assert f"figures/{name}.svg" in markdown
        assert svg in html
