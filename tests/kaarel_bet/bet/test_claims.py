"""Claims and checks judged on observations made by hand."""

from typing import Any

import numpy as np
import pytest

from kaarel_bet.bet.claims import Judge, check_claims
from kaarel_bet.bet.expressions import ExpressionError, parse_number
from kaarel_bet.bet.schema import BetBase, Claim
from kaarel_bet.claims import Outcome, Verdict
from tests.kaarel_bet.bet.evidence import PARAMETERS, Evidence

TRUE, FALSE, OPEN = (
    "mean(acc(q, a)) > 0.2",
    "mean(acc(q, a)) > 0.9",
    "mean(acc(q, a)) > threshold_2",
)


def bet(criteria: Any = (TRUE,), **more: Any) -> BetBase:
    claim = {"criteria": criteria} | more.pop("claim", {})
    parameters = PARAMETERS | {"threshold_2": 0.5}
    return BetBase.model_validate(
        {"bet": 1, "name": "b", "question": "?", "claims": {"c": claim}, "parameters": parameters}
        | more,
        strict=False,
    )


def evidence() -> Evidence:
    """Accuracies of a about 0.5 in three trainings, of the base 0; a's P(yes) is carried by one row."""
    coins = [[1.0, 0.0] * 10] * 3
    made = Evidence().add("acc", "a", coins).add("acc", "base", [0.0] * 20)
    return made.add("P", "a", [[0.9, *[1e-6] * 19]] * 3, candidate="yes")


def vocabulary() -> Any:
    known = Evidence().vocabulary
    return type(known)(known.arms, known.questions, PARAMETERS | {"threshold_2": 0.5})


def judge(of: BetBase, known: Evidence | None = None, tables: Any = None) -> Judge:
    return Judge(of, vocabulary(), (known or evidence()).observations, tables or {}, 0)


def verdict(of: BetBase, known: Evidence | None = None, tables: Any = None) -> Verdict:
    (found,) = judge(of, known, tables).verdicts()
    return found


@pytest.mark.parametrize(
    ("criteria", "checks", "expected"),
    [
        ([TRUE], {}, "holds"),
        ([TRUE, TRUE], {"k": TRUE}, "holds"),
        ([TRUE, FALSE], {}, "fails"),
        ([TRUE, OPEN], {}, "undecided"),
        ([FALSE, OPEN], {}, "fails"),  # what is surely missed decides, whatever else is open
        ([{"any_of": [FALSE, TRUE]}], {}, "holds"),
        ([{"any_of": [FALSE, OPEN]}], {}, "undecided"),
        ([{"any_of": [FALSE, FALSE]}], {}, "fails"),
        ([{"any_of": [FALSE, {"all_of": [TRUE, TRUE]}]}], {}, "holds"),
        ([TRUE], {"k": FALSE}, "undecided"),
        ([FALSE], {"k": FALSE}, "undecided"),
    ],
)
def test_outcomes(criteria: Any, checks: dict[str, str], expected: Outcome) -> None:
    assert verdict(bet(criteria, checks=checks)).outcome == expected


def test_a_claim_may_rest_on_some_checks_alone() -> None:
    checks = {"good": TRUE, "bad": FALSE}
    assert verdict(bet(checks=checks, claim={"checks": ["good"]})).outcome == "holds"
    assert verdict(bet(checks=checks)).outcome == "undecided"


def test_a_check_about_arms_goes_by_its_interval() -> None:
    for check in ("mean(acc(q, a)) >= 0.45", {"surely": "mean(acc(q, a)) >= 0.45"}):
        found = verdict(bet(checks={"k": check}))
        assert found.outcome == "undecided"
        assert found.checks[0].detail.startswith("mean(acc(q, a)) is 0.5 (0.")
    assert verdict(bet(checks={"k": "mean(acc(q, a)) >= 0.2"})).outcome == "holds"


def test_a_check_about_just_these_rows_goes_by_its_value() -> None:
    found = verdict(bet(checks={"k": {"these": "mean(acc(q, a)) >= 0.5"}}))
    assert found.outcome == "holds"
    assert found.checks[0].detail == "mean(acc(q, a)) is 0.5; needed: >= 0.5"
    wrong = bet(checks={"k": {"any_of": [{"these": "mean(acc(q, a)) >= 0.6"}, FALSE]}})
    assert verdict(wrong).outcome == "undecided"


def test_what_scores_leave_open_counts_against_a_check() -> None:
    known = evidence().add("acc", "b", [0.4] * 20, [0.8] * 20)
    assert verdict(bet(checks={"k": "mean(acc(q, b)) > 0.5"}), known).outcome == "undecided"
    assert verdict(bet(checks={"k": "mean(acc(q, b)) > 0.15"}), known).outcome == "holds"


def test_an_arm_that_was_trained_twice_gives_no_verdict() -> None:
    twice = Evidence().add("acc", "a", [[1.0, 0.0] * 10] * 2).add("acc", "base", [0.0] * 20)
    found = verdict(bet(), twice)
    assert found.outcome == "undecided"
    assert (
        "trained too seldom to know how much trainings differ (a twice): a verdict needs 3"
        in found.summary
    )
    assert (
        verdict(bet(["mean(acc(q, base)) < 0.5"]), twice).outcome == "holds"
    )  # nothing was trained


def test_more_criteria_widen_intervals_and_so_do_more_claims() -> None:
    def width(of: BetBase) -> float:
        criterion = judge(of).verdicts()[0].criteria[0]
        return criterion.high - criterion.low

    two, three = (width(bet([TRUE, *[OPEN] * n])) for n in (1, 2))
    assert width(bet([OPEN])) == two < three
    further = bet([OPEN])
    claims = dict.fromkeys(("c", "d"), further.claims["c"])
    assert width(further.model_copy(update={"claims": claims})) > two


def test_what_is_decided_leaves_the_rest_of_the_error_rate_to_the_others() -> None:
    claims = {"c": {"criteria": [OPEN]}, "d": {"criteria": [TRUE]}}
    both = bet().model_copy(
        update={"claims": {n: Claim.model_validate(c, strict=False) for n, c in claims.items()}}
    )
    undecided, holds = judge(both).verdicts()
    assert (undecided.outcome, holds.outcome) == ("undecided", "holds")
    (alone,) = judge(bet([OPEN])).verdicts()
    assert undecided.criteria == alone.criteria


def test_a_check_may_compare_two_numbers() -> None:
    checks = {"k": "mean(acc(q, base)) <= 0.9 * mean(acc(q, a))"}
    found = verdict(bet(checks=checks))
    assert found.checks[0].passed
    assert "mean(acc(q, base)) - (0.9 * mean(acc(q, a))) is -0.45 (" in found.checks[0].detail


def test_a_criterion_between_two_numbers_is_about_their_difference() -> None:
    (criterion,) = verdict(bet(["mean(acc(q, a)) > mean(acc(q, base))"])).criteria
    assert criterion.name == "mean(acc(q, a)) - (mean(acc(q, base)))"
    assert (criterion.threshold, criterion.holds) == (0.0, True)
    (turned,) = verdict(bet(["0.9 > mean(acc(q, a))"])).criteria
    assert (turned.name, turned.comparison, turned.holds) == ("mean(acc(q, a))", "<", True)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_no_single_row_may_turn_a_criterion(method: str) -> None:
    known = Evidence().add("acc", "b", [[0.0, *[1.0] * 10, *[0.2] * 9]] * 3)
    node = parse_number("mean(acc(q, b))", known.vocabulary)
    of = known.evaluator()
    whole = of.bootstrap(node, 0.025) if method == "bootstrap" else of.student(node, 0.025)
    name, _, without = next(of.without_each(node, 0.025, bootstrap=method == "bootstrap"))
    between = (whole.high + without) / 2
    assert (name, whole.high < between < without) == ("row-0", True)
    for level, passes in ((between, False), (0.05, True)):
        text = [f"mean(acc(q, b)) > {level}"]
        found = verdict(
            bet(text, checks={"leave_one_out": True}, intervals={"method": method}), known
        )
        assert found.checks[-1].passed is passes
        if not passes:
            assert "without row-0, mean(acc(q, b)) is 0." in found.checks[-1].detail
            assert found.outcome == "undecided"


def test_a_single_row_can_not_be_left_out() -> None:
    known = Evidence().add("acc", "b", [[0.5]] * 3)
    found = verdict(bet(["mean(acc(q, b)) > 0.1"], checks={"leave_one_out": True}), known)
    assert (found.checks[-1].passed, found.checks[-1].detail) == (False, "there is only one")


def test_a_row_that_carries_a_mean_is_named() -> None:
    found = verdict(bet(["mean(P(yes | q, a)) < 0.9"], checks={"leave_one_out": True}))
    assert "the largest share of mean(P(yes | q, a)) is 100% (row-0)" in found.checks[-1].detail


def test_a_leak_between_tables_is_counted() -> None:
    tables = {"train": [{"x": "A  b"}, {"x": "c"}], "test": [{"x": "a B"}, {"x": "d"}]}
    of = bet(checks={"no_leak": {"between": ["train", "test"], "on": "x"}})
    found = verdict(of, tables=tables)
    assert found.outcome == "undecided"
    assert found.checks[0].detail.startswith("1 of 2 rows of test have a x that stands in train")


def test_readings_replace_names_in_every_combination_and_say_how() -> None:
    readings = [
        {"replace": {"mean": ["mean", "median"], "q": ["q"]}},
        {"criteria": ["least(acc(q, a)) > 0.1"]},
    ]
    found = judge(bet(claim={"readings": readings})).readings("c")
    assert [(reading.words, reading.outcome) for reading in found] == [
        ("as agreed", "holds"),
        ("mean as median", "undecided"),
        ("criteria written otherwise", "fails"),
    ]
    assert judge(bet()).readings("c") == []


def test_more_settings_tried_widen_the_intervals() -> None:
    narrow, wide = (
        verdict(bet(intervals={"settings_tried": tried})).criteria[0] for tried in (1, 50)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_words_name_the_outcome_the_figures_and_what_was_missed() -> None:
    words = {"holds": "Yes.", "fails": "No.", "undecided": "N/A, the evidence is ambiguous"}
    assert verdict(bet(claim=words)).summary.startswith("Yes. mean(acc(q, a)) is 0.5 (0.")
    assert verdict(bet([FALSE], claim=words)).summary.endswith("Not met: mean(acc(q, a)).")
    open_one = verdict(bet([OPEN], claim=words, checks={"was_learned": FALSE})).summary
    assert open_one.startswith(
        "N/A, the evidence is ambiguous: the check 'was learned' failed; mean(acc(q, a)) straddles"
    )


def test_thresholds_of_probabilities_are_drawn() -> None:
    of = bet(["mean(P(yes | q, a)) > threshold", "mean(acc(q, a)) > 0.2"])
    assert judge(of).thresholds() == {"threshold 0.25": 0.25}


@pytest.mark.parametrize(
    ("of", "path", "says"),
    [
        (bet(["mean(acc(q, a)) > 2"]), ("claims", "c", "criteria", 0), "can never hold"),
        (bet(["mean(acc(q, a)) >= 0"]), ("claims", "c", "criteria", 0), "can never fail"),
        (
            bet([TRUE, {"any_of": [TRUE, "x > 1"]}]),
            ("claims", "c", "criteria", 1, "any_of", 1),
            "no parameter",
        ),
        (bet(checks={"k": "mean(acc(q, c)) > 1"}), ("checks", "k"), "is no arm"),
        (bet(checks={"k": {"surely": "1"}}), ("checks", "k", "surely"), "must be one comparison"),
        (bet(checks={"k": True}), ("checks", "k"), "must be an expression"),
        (bet(claim={"checks": ["k"]}), ("claims", "c", "checks"), "no check 'k'"),
        (
            bet(claim={"readings": [{"replace": {"mean": "meen"}}]}),
            ("claims", "c", "readings", 0),
            "no function",
        ),
        (
            bet(claim={"readings": [{"replace": {"meen": "median"}}]}),
            ("claims", "c", "readings", 0),
            "stands in no criterion",
        ),
        (
            bet(["geometric_mean(logP(yes | q, a)) > 0.1"]),
            ("claims", "c", "criteria", 0),
            "geometric_mean takes values from 0 to inf",
        ),
        (
            bet(["gain(2 * acc(q, a), acc(q, base)) > 0.1"]),
            ("claims", "c", "criteria", 0),
            "gain takes values from 0 to 1",
        ),
        (bet(["mean(acc(q, a)) / (1 - 1) > 2"]), ("claims", "c", "criteria", 0), "divides by zero"),
        (bet(report={"also": ["mean(acc(q, a)) > 1"]}), ("report", "also", 0), "not allowed"),
        (bet(checks={"leave_one_out": TRUE}), ("checks", "leave_one_out"), "must be true"),
        (bet(checks={"leave_one_out": False}), ("checks", "leave_one_out"), "an expression"),
        (
            bet(checks={"k": {"between": ["x", "y"], "on": "z"}}),
            ("checks", "k", "between"),
            "no table 'x'",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    of: BetBase, path: tuple[str | int, ...], says: str
) -> None:
    with pytest.raises(ExpressionError) as raised:
        check_claims(of, vocabulary())
    assert raised.value.key_path == path
    assert says in raised.value.message


def test_a_good_bet_has_no_mistakes() -> None:
    check_claims(bet([TRUE, OPEN], checks={"leave_one_out": True, "k": TRUE}), vocabulary())


def test_unsettled_answers_straddle() -> None:
    known = Evidence().add("acc", "a", np.zeros(20), np.ones(20))
    assert verdict(bet(["mean(acc(q, a)) > 0.5"]), known).outcome == "undecided"
