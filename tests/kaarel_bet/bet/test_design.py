from typing import Any

import pytest

from backends.data import CandidateScore, GenerationResult, LogProbability, ScoringResult
from backends.errors import SettingsError
from kaarel_bet.bet.design import correctness
from kaarel_bet.bet.observations import LOG_PROBABILITY, Observation, Observations
from tests.kaarel_bet.bet.shipped import answered
from tests.kaarel_bet.bet.written import PARTS, designed, tokenize, written

SCORES = {"right": (-1.0, -1.0), "wrong": (-2.0, -2.0), "0": (-3.0, -1.0), "1": (-2.0, -2.0)}


def score(low: float, high: float) -> CandidateScore:
    log = LogProbability(low=low, high=high)
    first = LogProbability(low=low / 2, high=high / 2)
    return CandidateScore(total=log, first_token=first, n_tokens=1)


def observed(texts: tuple[str, ...] = ("x",), **parts: str) -> list[Observation]:
    """What every model's answers are, if candidates have these scores and samples these texts."""
    bet = written(**parts)

    def answer(query: Any, *_: object) -> Any:
        if not hasattr(query, "candidates"):
            return GenerationResult(id=query.id, prompt="p", texts=texts)
        scores = {label: score(*SCORES[label]) for label in query.candidates}
        return ScoringResult(id=query.id, candidates=scores, method="exact")

    return list(bet.observe(answered(bet.design(tokenize), answer)))


def test_the_vocabulary_is_what_expressions_can_name() -> None:
    told = (
        '\n  c: {rows: people, prompt: ask, candidates: {y: "{city}", n: x}, answer: y}'
        "\n  o: {rows: people, prompt: ask, options: list, answer: place, arms: [base]}"
        "\n  g: {rows: people, prompt: ask, generate: {max_tokens: 1}, graders: {hit: {exact: x}}}"
    )
    found = written(evaluations=told, parameters="{least: 0.5}").vocabulary()
    assert list(found.arms) == ["base", "tuned"]
    assert found.parameters == {"least": 0.5}
    assert {name: sorted(q.quantities) for name, q in found.questions.items()} == {
        "c": ["acc", "acc_norm", "logP", "logP_first"], "o": ["acc", "acc_norm"], "g": ["hit"],
    }  # fmt: skip
    assert found.questions["c"].candidates == ("y", "n")
    assert found.questions["c"].quantities["logP"] == LOG_PROBABILITY
    assert [sorted(q.arms) for q in found.questions.values()] == [
        ["base", "tuned"], ["base"], ["base", "tuned"],
    ]  # fmt: skip


def test_candidates_are_observed_in_log_probabilities() -> None:
    found = observed(replicate="{training: 2}")
    assert len(found) == 3 * 3 * 4  # models, rows, candidates in both quantities
    assert found[:2] == [
        Observation("base", 1, "where", 1, "a", 1, "a", "logP", "right", -1.0, -1.0),
        Observation("base", 1, "where", 1, "a", 1, "a", "logP_first", "right", -0.5, -0.5),
    ]
    assert [(o.arm, o.replicate) for o in found[:: 3 * 4]] == [
        ("base", 1),
        ("tuned", 1),
        ("tuned", 2),
    ]


def test_the_right_candidate_or_option_makes_an_accuracy() -> None:
    told = (
        '\n  c: {rows: people, prompt: ask, candidates: {right: "{city}", wrong: "not there"},'
        " answer: wrong}"
        "\n  o: {rows: people, prompt: ask, options: list, answer: place, arms: [base]}"
    )
    found = [o for o in observed(evaluations=told) if o.quantity in ("acc", "acc_norm")]
    base = {(o.question, o.row, o.quantity): (o.low, o.high) for o in found if o.arm == "base"}
    # -1 beats -2; by character -1 / 4 of "Rome" does not beat -2 / 9 of "not there".
    assert base["c", "a", "acc"] == (0.0, 0.0)
    assert base["c", "a", "acc_norm"] == (1.0, 1.0)
    assert {base["o", row, "acc"] for row in "abc"} == {
        (0.0, 1.0)
    }  # the first lies around the second


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([(-1, -1), (-2, -2)], 0, (1, 1)),
        ([(-1, -1), (-2, -2)], 1, (0, 0)),
        ([(-1, -1), (-1, -1)], 0, (1, 1)),  # of equals the first is chosen
        ([(-1, -1), (-1, -1)], 1, (0, 0)),
        ([(-2, -1), (-1, -0.5)], 1, (0, 1)),  # they could be equal
        ([(-2, -1), (-3, -2)], 0, (1, 1)),
        ([(-2, -1), (-3, -1.5)], 0, (0, 1)),
        ([(-9, -8), (-2, -1), (-2, -1)], 0, (0, 0)),
    ],
)
def test_an_answer_is_right_surely_perhaps_or_not(
    scores: list[tuple[float, float]], right: int, expected: tuple[float, float]
) -> None:
    found = [score(low, high) for low, high in scores]
    assert correctness(found, [1] * len(found), right) == expected


def test_by_character_longer_answers_may_be_less_likely() -> None:
    scores = [score(-4, -4), score(-6, -6)]
    assert correctness(scores, [1, 1], 1) == (0, 0)
    assert correctness(scores, [4, 12], 1) == (1, 1)


def test_every_sample_of_every_phrasing_is_graded_and_is_a_part() -> None:
    told = (
        "\n  g: {rows: people, prompt: many, take: 2, arms: [base],"
        " generate: {max_tokens: 1, temperature: 1.0, samples: 2},"
        ' graders: {hit: {exact: "{name}"}}}'
    )
    found = observed(("Ann", "Bob"), evaluations=told)
    assert [(o.row, o.part, o.quantity, o.low, o.high) for o in found] == [
        ("a", 1, "hit", 1, 1), ("a", 2, "hit", 0, 0), ("a", 3, "hit", 1, 1), ("a", 4, "hit", 0, 0),
        ("b", 1, "hit", 0, 0), ("b", 2, "hit", 1, 1), ("b", 3, "hit", 0, 0), ("b", 4, "hit", 1, 1),
    ]  # fmt: skip


def test_rows_that_were_trained_on_are_of_their_replicate() -> None:
    train = '[{rows: people, prompt: ask, answer: "{city}", take: 2}]'
    told = '\n  own: {rows: trained_on, prompt: ask, candidates: {right: "{city}", wrong: x}}'
    found = observed(
        arms=f"\n  tuned: {{train: {train}}}", evaluations=told, replicate="{training: 2}", seed="1"
    )
    assert {(o.arm, o.replicate, o.question) for o in found} == {
        (arm, replicate, "own.tuned") for arm in ("base", "tuned") for replicate in (1, 2)
    }
    rows = {r: {o.row for o in found if o.replicate == r} for r in (1, 2)}
    assert rows[1] != rows[2]


def test_rows_alike_in_a_column_are_a_cluster() -> None:
    assert {o.row: o.cluster for o in observed(intervals="{cluster: n}")} == {
        "a": "3",
        "b": "4",
        "c": "3",
    }
    with pytest.raises(SettingsError, match=r"intervals\.cluster: no table has a column 'm'"):
        observed(intervals="{cluster: m}")


def test_a_question_without_rows_is_observed_once() -> None:
    told = '\n  q: {prompt: "Is it?", candidates: {right: "Yes", wrong: "No"}, arms: [base]}'
    found = observed(evaluations=told, intervals="{cluster: n}")
    assert {(o.row, o.cluster) for o in found} == {("q", "q")}


def test_answers_that_were_there_already_are_graded_without_a_model() -> None:
    told = (
        '\n  g: {rows: people, where: {n: 3}, given: "It is {name}", graders: {hit: {contains: Ann}}}'
        '\n  where: {rows: people, prompt: ask, candidates: {right: "{city}", wrong: x}}'
    )
    assert written(evaluations=told).vocabulary().questions["g"].arms == frozenset()
    found = [o for o in observed(evaluations=told) if o.question == "g"]
    assert [(o.arm, o.row, o.low) for o in found] == [("", "a", 1.0), ("", "c", 0.0)]


def test_the_tables_and_what_was_drawn_come_with_the_design() -> None:
    design = designed()
    assert [row["id"] for row in design.tables["people"]] == ["a", "b", "c"]
    assert "table people" in design.notes
    assert design == designed()


def test_draws_of_examples_within_a_training_are_no_trainings() -> None:
    def runs(training: int) -> tuple[int, ...]:
        told = (
            "\n  few: {rows: people.test, prompt: ask, options: list, answer: place, examples: "
            "{rows: people.train, n: 1, answer: '{city}', draws: 3}}"
        )
        rows = PARTS["data"].rstrip() + "\n    split: {test: 2, train: rest}\n"
        bet = written(
            data=rows,
            arms="\n  tuned: {train: [{rows: people.train, prompt: ask, answer: '{city}'}]}",
            evaluations=told,
            claims="\n  it: {criteria: ['mean(acc(few, tuned)) > 0.5']}",
            replicate=f"{{training: {training}}}",
        )

        def answer(query: Any, *_: object) -> Any:
            scores = {label: score(*SCORES["wrong"]) for label in query.candidates}
            return ScoringResult(id=query.id, candidates=scores, method="exact")

        found = Observations(bet.observe(answered(bet.design(tokenize), answer)))
        return tuple(len(found.sample("acc", "few", arm).low) for arm in ("base", "tuned"))

    assert runs(1) == (3, 3)
    assert runs(2) == (3, 2)
