"""Judges: what they are asked, and what their answers come to."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    ScoringQuery,
    ScoringResult,
)
from backends.errors import SettingsError
from backends.openai_api.scoring.intervals import Position, Token, bound
from kaarel_bet.bet.design import BetExperiment
from kaarel_bet.bet.judging import Judged, Judging, mean_between
from kaarel_bet.bet.observations import Observations
from kaarel_bet.bet.planning import foresee
from kaarel_bet.bet.schema import Grader
from kaarel_bet.experiments.interface import Answers, Asked, Evaluation
from tests.kaarel_bet.bet.written import PARTS, designed, tokenize, written

_ROW = {"id": "a", "name": "Ann"}


def judging(**rule: object) -> Judging:
    told = {"judge": "j", "prompt": "{name} says {answer}"} | rule
    return Judging("judged-g", Grader.model_validate(told), "j", "graders.g", 0)


def result(low: Mapping[str, float], high: Mapping[str, float] | None = None, n: int = 1) -> Any:
    """Scores with these probabilities; every label has as many tokens as characters (n=0), or `n`."""
    whole = {label: (p, (high or low)[label]) for label, p in low.items()}
    scores = {
        label: score(ends, n or len(label), first=whole.get(label[0] if n == 0 else label))
        for label, ends in whole.items()
    }
    return ScoringResult(id="q", candidates=scores, method="exact")


def score(
    whole: tuple[float, float], n_tokens: int, *, first: tuple[float, float] | None = None
) -> CandidateScore:
    """Of these probabilities at the least and the most: all of it, and its first token."""

    def log(p: float) -> float:
        return math.log(p) if p else -math.inf

    (low, high), (first_low, first_high) = whole, first or whole
    return CandidateScore(
        total=LogProbability(low=log(low), high=log(high)),
        first_token=LogProbability(low=log(first_low), high=log(first_high)),
        n_tokens=n_tokens,
    )


# --- what is asked ---------------------------------------------------------------------------------


def test_a_judge_is_asked_for_every_rating_of_the_scale() -> None:
    query = judging(scale=(0, 100)).query("Hi {name}", _ROW)
    assert isinstance(query, ScoringQuery)
    assert query.messages is not None
    assert query.messages[0].content == "Ann says Hi {name}"  # what was answered is verbatim
    assert list(query.candidates.values()) == [str(n) for n in range(101)]


def test_equal_prompts_are_one_query_and_others_another() -> None:
    one = judging(scale=(0, 3))
    assert one.query("x", _ROW) == one.query("x", {**_ROW, "id": "b"})
    assert one.query("x", _ROW).id != one.query("y", _ROW).id


def test_a_judge_without_log_probabilities_is_sampled_with_a_seed_of_each_prompt() -> None:
    one = judging(scale=(0, 3), samples=5, max_tokens=9)
    first, second = one.query("x", _ROW), one.query("y", _ROW)
    assert isinstance(first, GenerationQuery)
    assert isinstance(second, GenerationQuery)
    assert (first.n_samples, first.max_tokens, first.temperature) == (5, 9, 1.0)
    assert first.seed != second.seed


# --- what is said ----------------------------------------------------------------------------------


def test_the_grade_is_the_mean_under_the_probability_that_is_on_ratings() -> None:
    said = judging(scale=(0, 2)).judged(result({"0": 0.1, "1": 0.2, "2": 0.5}))
    assert said.grade == pytest.approx(((0.2 + 2 * 0.5) / 0.8,) * 2)
    assert said.elsewhere == pytest.approx((0.2, 0.2))
    assert said.unjudged == (0, 0)


def test_a_number_that_begins_a_longer_one_is_not_it() -> None:
    scale = {str(n): 0.0 for n in range(11)} | {"1": 0.7, "10": 0.6, "2": 0.3}
    by_digits = judging(scale=(0, 10)).judged(result(scale, n=0))
    assert by_digits.grade == pytest.approx((0.1 + 6 + 0.6,) * 2)  # P("1") holds P("10")
    assert by_digits.elsewhere == pytest.approx((0, 0), abs=1e-12)
    whole = judging(scale=(0, 10)).judged(result(scale | {"1": 0.1}))  # of one token each
    assert whole.grade == pytest.approx(by_digits.grade)


def test_a_chain_of_beginnings_is_taken_apart() -> None:
    scale = {str(n): 0.0 for n in range(101)} | {"1": 0.9, "10": 0.8, "100": 0.5, "5": 0.1}
    said = judging(scale=(0, 100)).judged(result(scale, n=0))
    assert said.grade == pytest.approx((0.1 * 1 + 0.3 * 10 + 0.5 * 100 + 0.1 * 5,) * 2)


def test_a_number_that_begins_otherwise_in_tokens_is_not_taken_from_a_shorter_one() -> None:
    ones = {str(n): score((0, 0), 1) for n in range(1001)}
    ones["1"] = score((0.5, 0.5), 1)
    ones["100"] = score((0.3, 0.3), 1)
    ones["1000"] = score((0.4, 0.4), 2, first=(0.5, 0.5))  # "1", "000"
    said = judging(scale=(0, 1000)).judged(ScoringResult(id="q", candidates=ones, method="exact"))
    assert said.grade == pytest.approx(((0.1 * 1 + 0.3 * 100 + 0.4 * 1000) / 0.8,) * 2)


def test_options_are_shares_of_what_is_on_any() -> None:
    said = judging(options=("YES", "NO")).judged(result({"YES": 0.3, "NO": 0.5}))
    assert said.grade == pytest.approx((0.375, 0.375))
    assert said.shares["NO"] == pytest.approx((0.625, 0.625))
    assert said.elsewhere == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize(
    ("low", "high", "limit", "unjudged"),
    [
        ({"0": 0.1, "1": 0.2}, None, 0.5, (1, 1)),
        ({"0": 0.1, "1": 0.2}, {"0": 0.1, "1": 0.6}, 0.5, (0, 1)),
        ({"0": 0.1, "1": 0.2}, None, 0.7, (0, 0)),
        ({"0": 0.0, "1": 0.0}, None, 0.99, (1, 1)),
    ],
)
def test_too_much_elsewhere_leaves_all_of_the_scale_open(
    low: dict[str, float], high: dict[str, float] | None, limit: float, unjudged: tuple[int, int]
) -> None:
    said = judging(scale=(0, 1), unjudged_above=limit).judged(result(low, high))
    assert said.unjudged == unjudged
    assert (said.grade == (0, 1)) == bool(unjudged[1])  # never the minimum, never left out


def test_what_is_not_shown_makes_an_interval() -> None:
    low, high = {"0": 0.6, "1": 0.3, "2": 0.0}, {"0": 0.6, "1": 0.3, "2": 0.1}
    said = judging(scale=(0, 2)).judged(result(low, high))
    assert said.grade == pytest.approx((0.3 / 0.9, 0.5 / 1.0))
    assert said.elsewhere == pytest.approx((0, 0.1), abs=1e-12)


_SHARES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6)


@given(_SHARES)
def test_means_lie_as_far_apart_as_a_linear_program_finds(
    shares: list[tuple[float, float]],
) -> None:
    low = np.array([min(one) for one in shares])
    high = np.array([max(one) for one in shares])
    low /= max(1.0, low.sum() * 1.1)
    high = np.maximum(high, low)
    if low.sum() < 1e-3:
        return  # where nothing is sure to be on a label the mean can be anything
    values = np.arange(len(low), dtype=float)
    n = len(low)
    # Charnes & Cooper (1962): y = weight / sum, t = 1 / sum.
    above = np.hstack([np.eye(n), -high[:, None]])
    below = np.hstack([-np.eye(n), low[:, None]])
    at_most_one = np.array([[*np.zeros(n), -1.0]])  # sum <= 1 is t >= 1
    ends = []
    for sign in (1, -1):
        found = linprog(
            sign * np.append(values, 0),
            A_ub=np.vstack([above, below, at_most_one]),
            b_ub=np.append(np.zeros(2 * n), -1.0),
            A_eq=[np.append(np.ones(n), 0)],
            b_eq=[1],
        )
        ends.append(sign * found.fun)
    assert mean_between(list(values), low, high) == pytest.approx(ends, abs=1e-6)


def sampled(*texts: str, **rule: object) -> Judged:
    told = {"scale": (0, 10), "samples": len(texts)} | rule
    return judging(**told).judged(GenerationResult(id="q", prompt="", texts=texts))


def test_samples_have_a_mean_and_a_standard_error() -> None:
    said = sampled("7", " 9\n", "8.", "8 of 10")
    assert said.grade == (8, 8)
    assert said.error == pytest.approx((np.std([7, 9, 8, 8], ddof=1) / 2,) * 2)


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("８", 0),  # full-width digits, and those of other scripts, are digits
        ("٨", 0),
        ("08", 0),
        ("8.5", 1),
        ("1,000", 1),
        ("11", 1),
        ("-1", 1),
        ("I'd say 8", 1),
        ("I can't rate this.", 1),
        ("", 1),
    ],
)
def test_an_answer_begins_with_its_rating_or_has_none(text: str, elsewhere: float) -> None:
    said = sampled(text)
    assert said.elsewhere == (elsewhere, elsewhere)
    assert said.grade == ((0, 10) if elsewhere else (8, 8))


def test_samples_of_options() -> None:
    said = sampled("YES, it is", "NO", "no", "NO.", scale=None, options=("YES", "NO"))
    assert said.grade == pytest.approx((1 / 3, 1 / 3))
    assert said.elsewhere == (0.25, 0.25)


# --- bets with judges --------------------------------------------------------------------------------

_JUDGE = 'judge: j, scale: [0, 4], prompt: "{name}: {answer}"'
_BET = {
    "models": "{j: {backend: local}, k: {backend: local, model: other}}",
    "graders": f"{{kind: {{{_JUDGE}}}, nice: {{all_of: ['kind > 2']}}}}",
    "evaluations": """
  e: {rows: people, prompt: ask, generate: {max_tokens: 2, temperature: 1.0, samples: 2}, graders: [nice]}
  by_hand: {rows: people, given: "{city}", graders: [kind], known: {kind: n}}
""",
    "claims": "\n  it: {criteria: ['mean(nice(e, tuned)) - mean(nice(e, base)) > 0.1']}",
}


def played(bet: BetExperiment, said: Mapping[str, tuple[str, ...]]) -> Answers:
    """Everyone answers every row of `e` with the same texts, by the row's id."""
    design = bet.design(tokenize)
    entries = {arm.name: arm.entry() for arm in design.arms}
    asked = [
        Asked(
            entries[name],
            one.entry(),
            [GenerationResult(id=q.id, prompt="", texts=said[q.id[0]]) for q in one.queries],
            one.queries,
        )
        for one in design.evaluations
        for name in one.arms
    ]
    return Answers(asked, design.tables)


def rated(evaluations: list[Evaluation], by_word: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Judges that are sure of the rating that a prompt's last word has."""

    def rating(query: Any) -> Any:
        word = query.messages[0].content.split()[-1]
        labels = {label: float(label == by_word[word]) for label in query.candidates}
        return result(labels).model_copy(update={"id": query.id})

    return {one.name: {q.id: rating(q) for q in one.queries} for one in evaluations}


def test_judges_are_asked_each_prompt_once_for_all_arms_gates_and_given_answers() -> None:
    bet = written(**_BET)
    said = {"a": ("x", "y"), "b": ("x", "x"), "c": ("y", "Lima")}
    (judged,) = bet.judgements(played(bet, said))
    assert (judged.name, judged.arms) == ("judged-kind", ["j"])
    prompts = [q.messages[0].content for q in judged.queries if q.messages]
    assert prompts == [
        "Ann: x",
        "Ann: y",
        "Bob: x",
        "Cem: y",
        "Cem: Lima",
        "Ann: Rome",
        "Bob: Oslo",
    ]


def test_grades_become_observations_with_what_is_known() -> None:
    bet = written(**_BET)
    answers = played(bet, {"a": ("x", "y"), "b": ("x", "x"), "c": ("y", "y")})
    words = {"x": "4", "y": "1", "Rome": "3", "Oslo": "4", "Lima": "0"}
    judgements = rated([*bet.judgements(answers)], words)
    found = Observations(bet.observe(Answers(answers.asked, answers.tables, judgements)))
    assert [(o.row, o.part, o.low, o.high) for o in found.of("nice", "e", "tuned")] == [
        ("a", 1, 1, 1), ("a", 2, 0, 0), ("b", 1, 1, 1), ("b", 2, 1, 1), ("c", 1, 0, 0), ("c", 2, 0, 0),
    ]  # fmt: skip
    assert not found.of("kind", "e", "tuned")  # the gate alone was asked for
    assert [o.low for o in found.of("kind", "by_hand", "")] == [3, 4, 0]
    assert [o.low for o in found.of("kind.known", "by_hand", "")] == [3, 4, 3]
    assert [o.high for o in found.of("kind.unjudged", "by_hand", "")] == [0, 0, 0]


def test_an_answer_that_an_interval_leaves_open_passes_a_gate_and_does_not() -> None:
    bet = written(**_BET)
    answers = played(bet, {"a": ("x", "x"), "b": ("x", "x"), "c": ("x", "x")})
    open_ = result(dict.fromkeys("01234", 0.1), {"0": 0.1, "1": 0.1, "2": 0.1, "3": 0.1, "4": 0.6})
    queries = [q for one in bet.judgements(answers) for q in one.queries]
    judgements = {"judged-kind": {q.id: open_ for q in queries}}
    found = Observations(bet.observe(Answers(answers.asked, answers.tables, judgements)))
    assert {(o.low, o.high) for o in found.of("nice", "e", "base")} == {(0, 1)}


def test_a_second_judge_is_asked_the_same() -> None:
    parts = _BET | {"graders": f"{{kind: {{{_JUDGE}, second: k}}, nice: {{exact: x}}}}"}
    bet = written(**parts, checks="{same: 'agreement(kind(by_hand), kind.second(by_hand)) > 0.5'}")
    answers = played(bet, {"a": ("x", "y"), "b": ("x", "x"), "c": ("y", "y")})
    first, second = bet.judgements(answers)
    assert [first.arms, second.arms] == [["j"], ["k"]]
    assert first.queries == second.queries
    words = {"Rome": "3", "Oslo": "4", "Lima": "0"}
    judgements = rated([first], words) | rated([second], words | {"Oslo": "1"})
    found = Observations(bet.observe(Answers(answers.asked, answers.tables, judgements)))
    assert [o.low for o in found.of("kind.second", "by_hand", "")] == [3, 1, 0]


def test_models_are_asked_where_an_evaluation_names_them() -> None:
    told = "\n  e: {rows: people, prompt: ask, arms: [base, j], candidates: {y: Yes}}"
    claims = "\n  it: {criteria: ['mean(P(y | e, j)) > 0.1']}"
    parts = {"models": _BET["models"], "evaluations": told, "claims": claims}
    (asked,) = designed(**parts).evaluations
    assert list(asked.arms) == ["base", "j"]
    assert written(**parts).vocabulary().models == ["j", "k"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"graders": "{nice: {judge: tuned, options: [Y, N], prompt: '{answer}'}}"},
            r"graders\.nice\.judge: 'tuned' is an arm, and no arm can judge",
        ),
        (
            {"graders": "{nice: {judge: jj, options: [Y, N], prompt: '{answer}'}}"},
            r"graders\.nice\.judge: no model 'jj'; did you mean 'j'",
        ),
        (
            {"graders": "{nice: {judge: j, options: [Y, N], prompt: 'Is it?'}}"},
            r"graders\.nice: prompt: has no \{answer\}",
        ),
        (
            {"graders": "{nice: {judge: j, options: [no, not], prompt: '{answer}'}}"},
            r"graders\.nice: options: 'no' begins 'not'",
        ),
        (
            {"graders": "{nice: {judge: j, options: [no, no], prompt: '{answer}'}}"},
            r"graders\.nice: options: 'no' stands there twice",
        ),
        (
            {"graders": "{nice: {judge: j, scale: [5, 0], prompt: '{answer}'}}"},
            r"graders\.nice: scale: from a number to a greater one",
        ),
        (
            {"graders": "{nice: {judge: j, second: j, scale: [0, 1], prompt: '{answer}'}}"},
            r"graders\.nice: second: is the same judge",
        ),
        (
            {"graders": "{nice: {exact: x, samples: 3}}"},
            r"graders\.nice: 'samples' goes with 'judge'",
        ),
        (
            {"models": "{tuned: {backend: local}, j: {backend: local}}"},
            r"models\.tuned: an arm is called the same",
        ),
        ({"models": "{j: {backend: loca}}"}, r"models\.j"),
        ({"models": "{j: {backend: local, temperature: 1}}"}, r"models\.j.*temperature"),
        (
            {
                "evaluations": _BET["evaluations"].replace(
                    "graders: [nice]}", "graders: [nice], arms: [j]}"
                )
            },
            r"evaluations\.e\.arms: 'j' is asked and would judge its own answers",
        ),
        (
            {"evaluations": _BET["evaluations"].replace("known: {kind: n}", "known: {kindd: n}")},
            r"evaluations\.by_hand\.known: no grader of this evaluation 'kindd'; did you mean 'kind'",
        ),
        (
            {"evaluations": _BET["evaluations"].replace("known: {kind: n}", "known: {kind: city}")},
            r"evaluations\.by_hand\.known\.kind: column 'city' of row a is 'Rome', which is no number",
        ),
        (
            {
                "graders": "{kind: {judge: j, scale: [0, 4], prompt: '{nam} {answer}'}, nice: {exact: x}}"
            },
            r"graders\.kind\.prompt: no column 'nam'; did you mean 'name'",
        ),
    ],
)
def test_judges_that_cannot_be_are_refused(parts: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        designed(**(_BET | parts))


def test_what_will_be_judged_is_foreseen_without_a_model() -> None:
    bet = written(**_BET)
    seen = foresee(bet, bet.design(tokenize))
    (judged,) = seen.judgements
    assert len(judged.queries) == 2 * 3 * 2 + 3  # two arms, three rows, two samples; three by hand
    assert len(seen.observations.of("nice", "e", "tuned")) == 6


# --- asked on ----------------------------------------------------------------------------------------

_ON = """
  e: {rows: people, prompt: many, generate: {max_tokens: 2, temperature: 1.0, samples: 2}, graders: [loud]}
  on: {after: e, prompt: "Sure, {name}?", candidates: {y: Yes, n: No}}
  again: {after: e, prompt: "Why?", generate: {max_tokens: 3}, graders: [loud]}
  third: {after: again, prompt: "Really?", candidates: {y: Yes}}
"""


def _asked_on(bet: BetExperiment, answers: Answers) -> list[Evaluation]:
    return list(bet.follow_ups(answers))


def test_a_question_is_asked_on_after_a_model_s_own_answers() -> None:
    bet = written(
        evaluations=_ON,
        graders="{loud: {share_of_letters: upper}}",
        claims="\n  it: {criteria: ['mean(P(y | on, tuned)) > 0.1']}",
    )
    assert bet.rounds == 2
    said = {"a": ("In R", "No"), "b": ("b1", "b2"), "c": ("c1", "c2")}
    found = {one.name: one for one in _asked_on(bet, played(bet, said))}
    assert set(found) == {f"{q}-of-{arm}" for q in ("on", "again") for arm in ("base", "tuned")}
    first, second, *rest = found["on-of-tuned"].queries
    assert [first.id, second.id, rest[0].id] == ["a/1#1", "a/1#2", "a/2#1"]
    assert [(m.role, m.content) for m in first.messages or ()] == [
        ("user", "Ann?"),
        ("assistant", "In R"),
        ("user", "Sure, Ann?"),
    ]
    assert next(m.role for m in rest[0].messages or ()) == "system"  # as it was first asked
    assert len(found["on-of-tuned"].queries) == 3 * 2 * 2


def test_answers_to_what_is_asked_on_are_observations_of_the_row_and_the_answer() -> None:
    bet = written(
        evaluations=_ON,
        graders="{loud: {share_of_letters: upper}}",
        claims="\n  it: {criteria: ['mean(P(y | third, tuned)) > 0.1']}",
    )
    observed = foresee(bet, bet.design(tokenize)).observations
    for question in ("on", "third"):
        found = observed.of("logP", question, "tuned", "y")
        assert [(o.row, o.part) for o in found[:5]] == [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("a", 4),
            ("b", 1),
        ]
    assert [o.part for o in observed.of("loud", "e", "tuned")[:5]] == [1, 2, 3, 4, 1]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            "after: ee, prompt: W?",
            r"evaluations\.on\.after: no evaluation with answers 'ee'; .*'e'",
        ),
        ("after: e, prompt: said", r"evaluations\.on\.prompt: asks on in a chat"),
        ("after: e, prompt: W?, rows: people", r"evaluations\.on: 'rows' does not go with 'after'"),
    ],
)
def test_questions_that_cannot_be_asked_on_are_refused(told: str, message: str) -> None:
    evaluations = "\n  e: {rows: people, prompt: ask, generate: {max_tokens: 1}, graders: [loud]}"
    evaluations += f"\n  on: {{{told}, candidates: {{y: Yes}}}}"
    claims = "\n  it: {criteria: ['mean(loud(e, tuned)) > 0.1']}"
    parts = {"evaluations": evaluations, "claims": claims}
    with pytest.raises(SettingsError, match=message):
        designed(**parts, graders="{loud: {share_of_letters: upper}}")


# --- what a review found ---------------------------------------------------------------------------


def test_ratings_are_bounded_where_it_is_not_known_how_they_fall_into_tokens() -> None:
    """Of a path 5, 0 with 1 beside 5: all of P(1) may be that of 100, digit by digit."""
    taken, other = Token(b"5", math.log(0.55)), Token(b"1", math.log(0.45))
    zero = Token(b"0", 0.0)
    path = [Position.of([taken, other], taken, 20), Position.of([zero], zero, 20)]
    scores = {str(n): bound(str(n).encode(), path, None) for n in range(101)}
    said = judging(scale=(0, 100)).judged(ScoringResult(id="q", candidates=scores, method="top-20"))
    low, high = said.grade
    assert low <= 0.55 * 50 + 0.45 * 100 <= high


def test_a_sampled_rating_of_thousands_of_digits_is_none() -> None:
    assert sampled("9" * 5000).elsewhere == (1, 1)
    assert sampled("0" * 5000 + "7").grade == (7, 7)


def test_the_standard_error_of_samples_is_observed() -> None:
    parts = _BET | {"graders": "{kind: {" + _JUDGE + ", samples: 4}, nice: {exact: x}}"}
    bet = written(**parts)
    answers = played(bet, {"a": ("x", "y"), "b": ("x", "x"), "c": ("y", "y")})
    judgements = {
        one.name: {
            q.id: GenerationResult(id=q.id, prompt="", texts=("1", "3", "1", "3"))
            for q in one.queries
        }
        for one in bet.judgements(answers)
    }
    found = Observations(bet.observe(Answers(answers.asked, answers.tables, judgements)))
    assert [o.low for o in found.of("kind", "by_hand", "")] == [2, 2, 2]
    assert found.of("kind.error", "by_hand", "")[0].low == pytest.approx(1 / math.sqrt(3))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"graders": "{kind: {judge: j, options: [known, other], prompt: '{answer}'}}"},
            r"graders\.kind\.options: 'known' means something else",
        ),
        (
            {"evaluations": _BET["evaluations"].replace("rows: people, given", "given")},
            r"evaluations\.by_hand: 'given' needs 'rows'",
        ),
        (
            {
                "evaluations": _BET["evaluations"].replace(
                    "known: {kind: n}", "known: {kind: big}"
                ),
                "data": PARTS["data"]
                .replace("n: 3", "n: 3, big: 9")
                .replace("n: 4", "n: 4, big: 9"),
            },
            r"evaluations\.by_hand\.known\.kind: 9 in row a, and grades are from 0 to 4",
        ),
        (
            {
                "evaluations": _BET["evaluations"]
                + "  on: {after: e, prompt: many, candidates: {y: Yes}}\n"
            },
            r"evaluations\.on\.prompt: asks on in one phrasing, and this has 2",
        ),
        (
            {
                "evaluations": _BET["evaluations"]
                + "  on: {after: e, prompt: W?, candidates: {y: '{nam}'}}"
            },
            r"evaluations\.on\.candidates\.y: no column 'nam'",
        ),
    ],
)
def test_what_would_fail_after_training_is_refused_before(
    parts: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        designed(**(_BET | parts))


def test_graders_of_one_name_are_asked_apart() -> None:
    own = f"\n  kind: {{rows: people, given: x, graders: {{second: {{{_JUDGE}}}}}}}"
    parts = _BET | {"graders": f"{{kind: {{{_JUDGE}, second: k}}, nice: {{exact: x}}}}"}
    bet = written(**(parts | {"evaluations": _BET["evaluations"].rstrip() + own}))
    answers = played(bet, {"a": ("x", "y"), "b": ("x", "x"), "c": ("y", "y")})
    asked = {one.name: one.arms for one in bet.judgements(answers)}
    assert asked == {"judged-kind": ["j"], "judged-kind-second": ["k"], "judged-kind.second": ["j"]}
