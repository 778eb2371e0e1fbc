import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet.bet.evaluation import foregone, range_of
from kaarel_bet.bet.expressions import (
    Aggregate,
    ExpressionError,
    Observed,
    observed_in,
    parse_criterion,
    parse_number,
    replaced,
)
from tests.kaarel_bet.bet.evidence import Evidence

KNOWN = Evidence().vocabulary


def message(text: str) -> str:
    with pytest.raises(ExpressionError) as raised:
        parse_criterion(text, KNOWN)
    return raised.value.message


def test_a_probability_says_what_of_what_and_of_whom() -> None:
    node = parse_number("mean(P(yes | q, a))", KNOWN)
    (one,) = observed_in(node)
    assert (one.quantity, one.candidate, one.question, one.arm) == ("logP", "yes", "q", "a")
    assert one.exponential
    assert one.range == (0.0, 1.0)


def test_dotted_questions_and_other_quantities_are_read() -> None:
    node = parse_number("mean(acc(few.shots, base))", KNOWN)
    assert isinstance(node, Aggregate)
    assert isinstance(node.arguments[0], Observed)
    assert node.arguments[0].question == "few.shots"


def test_line_breaks_of_a_folded_text_mean_nothing() -> None:
    folded = parse_criterion("mean(P(yes | q, a))\n  > threshold\n", KNOWN)
    assert folded == parse_criterion("mean(P(yes | q, a)) > threshold", KNOWN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mean(P(yes | q, a))", "must be one comparison"),
        ("0 < mean(P(yes | q, a)) < 1", "must be one comparison"),
        ("mean(P(yes | q, a)) == 1", "compares otherwise"),
        ("P(yes | q, a) > 0.5", "write an aggregate around it"),
        ("mean(mean(P(yes | q, a))) > 0.5", "has one number already"),
        ("mean(P(yes | q, a) / mean(P(no | q, a))) > 1", "mixes a value for every row"),
        ("mean(P(maybe | q, a)) > 0.5", "names 'maybe', which is no candidate of q"),
        ("mean(P(yes | k, a)) > 0.5", "'k' is no question"),
        ("mean(P(yes | q, conditional)) > 0.5", "'conditional' is no arm"),
        ("mean(acc(few.shots, a)) > 0.5", "'a' is not asked few.shots; asked are: base"),
        ("mean(acc(hard, a)) > 0.5", "asks for acc, which is not observed in hard: it has loss"),
        ("mean(P(yes, a)) > 0.5", "must be written P(CANDIDATE | QUESTION, ARM)"),
        ("mean(P(yes | few.shots, base)) > 0.5", "it has none"),
        ("meen(P(yes | q, a)) > 0.5", "did you mean 'mean'?"),
        ("mean(P(yes | q, a)) > treshold", "did you mean 'threshold'?"),
        ("mean(P(yes | q, a), 3) > 0.5", "has 2 arguments; mean takes 1"),
        ("share(P(yes | q, a)) > 0.5", "must be of a comparison"),
        ("share(mean(P(yes | q, a)) > 0.5) > 0.3", "neither side has a value for every row"),
        ("share(threshold > 0.2) > 0.3", "neither side has a value for every row"),
        ("mean(acc(q, a) - acc(elsewhere, a)) > 0.1", "mixes rows that differ (others, rows)"),
        ("mean(P(yes | q, a)) > 1e999", "too large a number"),
        ("mean(P(yes | q, a)) > 'x'", "is not allowed"),
        ("mean(P(yes | q, a)) > True", "is not allowed"),
        ("mean(acc(q)) > 0.5", "lacks the arm"),
        ("mean(P(yes | q, a) >", "is no expression"),
        ("(lambda: 1)() > 0", "is not allowed"),
        ("__import__('os').getcwd() > 0", "is not allowed"),
        ("mean(q.__class__) > 0", "is not allowed"),
        ("[x for x in (1, 2)] > 0", "is not allowed"),
        ("-" * 70 + "1 > 0", "levels deep"),
        ("(" * 400 + "1" + ")" * 400 + " > 0", "is no expression"),
        ("1 + " * 600 + "1 > 0", "2,000 are the most"),
        ("", "is no expression"),
        ("\0 > 1", "is no expression"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(text: str, says: str) -> None:
    assert says in message(text)
    assert "\n" not in message(text)


_PIECES = st.sampled_from(
    ["mean", "share", "gain", "P", "acc", "(", ")", "|", ",", ">", "-", "/", "*", ".", "q", "a", "b",
     "yes", "threshold", "0.5", "1e9", "not", "lambda:", "[", "]", "few.shots", "'", "**", ":=", " "]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=25).map("".join) | st.text(max_size=60))
def test_no_text_whatever_ends_in_anything_but_a_line(text: str) -> None:
    try:
        parse_criterion(text, KNOWN)
    except ExpressionError as error:
        assert error.message  # noqa: PT017


def test_names_are_replaced_as_wholes() -> None:
    text = "mean(P(yes | few.shots, mean_arm)) > threshold"
    names = {"mean": "median", "few.shots": "q", "P": "P_first"}
    assert replaced(text, names) == "median(P_first(yes | q, mean_arm)) > threshold"


@pytest.mark.parametrize("name", ["a b", "f(x)", "ce:.x", "", "1", "q."])
def test_only_names_are_replaced(name: str) -> None:
    for names in ({"mean": name}, {name: "mean"}):
        with pytest.raises(ExpressionError, match="is no name"):
            replaced("mean(acc(q, a)) > 0.5", names)


@pytest.mark.parametrize(
    ("text", "always"),
    [
        ("mean(P(yes | q, a)) > 1", False),
        ("mean(P(yes | q, a)) >= 0", True),
        ("mean(logP(yes | q, a)) > 0.5", False),
        ("mean(P(yes | q, a)) - mean(P(yes | q, b)) <= 1", True),
        ("gain(acc(q, a), acc(q, base)) > 1", False),
        ("share(P(yes | q, a) > P(no | q, a)) > 0.5", None),
        ("mean(P(yes | q, a)) / mean(P(no | q, a)) > 10", None),
        ("mean(loss(hard, a)) >= 0", True),
    ],
)
def test_what_can_only_come_out_one_way_is_known_beforehand(text: str, always: bool | None) -> None:
    assert foregone(parse_criterion(text, KNOWN)) is always


def test_ranges_follow_the_arithmetic() -> None:
    node = parse_number("mean(acc(q, a)) - 2 * mean(acc(q, b))", KNOWN)
    assert range_of(node) == (-2.0, 1.0)
