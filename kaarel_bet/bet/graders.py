"""What makes numbers of an answer: registered rules, judges and gates over others."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from backends.errors import SettingsError
from kaarel_bet.bet.expressions import AGGREGATES, PROBABILITIES
from kaarel_bet.bet.judging import Judging
from kaarel_bet.bet.observations import SHARE, Range
from kaarel_bet.bet.prompts import check_text, fill, unknown
from kaarel_bet.bet.schema import Bet, Evaluation, Grader
from kaarel_bet.claims import Comparison, settled
from kaarel_bet.experiments.interface import Row

KNOWN = "known"
"""After a grader's name and a dot: what it should come to, of answers that are given."""

UNJUDGED = "unjudged"
"""The same: 1 for an answer that it could make no number of."""

ELSEWHERE = "elsewhere"
"""The same: what of a judge's probability is on none of the labels."""

SECOND = "second"
"""The same: the other judge's grade."""

ERROR = "error"
"""The same: the standard error of a grade that is the mean of samples."""

_FALLIBLE = ("judge", "math", "json_schema", "language")
"""Rules that may come to nothing."""

_TAKEN = {*AGGREGATES, *PROBABILITIES, "acc", "acc_norm"}
_NUMBER = re.compile(
    r"(?:(?<![\w.])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_GATE = re.compile(r"\s*(\w+(?:\.\w+)?)\s*(>=|>|<=|<)\s*(-?\d+(?:\.\d+)?)\s*")

Gate = tuple[str, Comparison, float]
"""A quantity, and what it is compared with."""

Grades = Mapping[str, Range]
"""Quantity -> the least and the most that it is."""


def graders_of(bet: Bet, name: str, evaluation: Evaluation) -> dict[str, Grader]:
    """The graders of an evaluation, its own or the bet's. Raises SettingsError for an unknown one."""
    if isinstance(evaluation.graders, dict):
        return evaluation.graders
    for grader in evaluation.graders:
        if grader not in bet.graders:
            raise unknown("grader", grader, bet.graders, f"evaluations.{name}.graders")
    return {grader: bet.graders[grader] for grader in evaluation.graders}


def check_graders(bet: Bet) -> None:
    """Raises SettingsError for a grader that can't be what it says, whatever the rows are."""
    for key, graders in _written(bet).items():
        for name, grader in graders.items():
            where = f"{key}.{name}"
            if name in _TAKEN:
                raise SettingsError(f"{where}: expressions call something else '{name}'; rename it")
            for rule in ("exact", "contains", "starts_with", "number", "math", "equals", "prompt"):
                check_text(getattr(grader, rule) or "", f"{where}.{rule}")
            try:
                re.compile(grader.regex or "")
            except re.error as error:
                raise SettingsError(f"{where}.regex: {error}") from error
            _check_library(grader, where)
            _check_judges(bet, grader, where)
            _check_gate(grader, name, {**bet.graders, **graders}, where)


def _check_library(grader: Grader, where: str) -> None:
    if grader.json_schema is not None:
        import jsonschema

        try:
            jsonschema.Draft202012Validator.check_schema(grader.json_schema)
        except jsonschema.SchemaError as error:
            raise SettingsError(f"{where}.json_schema: {error.message}") from error
    if grader.language is not None and grader.language not in (known := _languages("a")):
        raise unknown("language", grader.language, known, f"{where}.language")


def _check_judges(bet: Bet, grader: Grader, where: str) -> None:
    for key, judge in (("judge", grader.judge), ("second", grader.second)):
        if judge in bet.arms:
            what = f"'{judge}' is an arm, and no arm can judge; name one of the bet's models"
            raise SettingsError(f"{where}.{key}: {what}")
        if judge is not None and judge not in bet.models:
            raise unknown("model", judge, bet.models, f"{where}.{key}")
    if grader.options is not None:
        for label in grader.labels:
            if label in (SECOND, KNOWN, UNJUDGED, ELSEWHERE, ERROR):
                raise SettingsError(f"{where}.options: '{label}' means something else; rename it")


def _check_gate(grader: Grader, name: str, known: Mapping[str, Grader], where: str) -> None:
    for gate in grader.gates:
        of, *_ = _gate(gate, where)
        other = known.get(of.partition(".")[0])
        if other is None or of not in quantities_of(of.partition(".")[0], other):
            quantities = [q for n, g in known.items() if n != name for q in quantities_of(n, g)]
            raise unknown("grade", of, quantities, where)
        if other.gates:
            raise SettingsError(
                f"{where}: '{gate.strip()}' is of another gate; name what that is of"
            )


def _gate(gate: str, where: str) -> Gate:
    found = _GATE.fullmatch(gate)
    if found is None:
        raise SettingsError(
            f"{where}: '{gate}': a grade compared with a number, as in coherent > 50"
        )
    sign: Any = found[2]
    return found[1], sign, float(found[3])


def _written(bet: Bet) -> Mapping[str, Mapping[str, Grader]]:
    """Key -> the graders that stand there."""
    own = ((f"evaluations.{name}.graders", e.graders) for name, e in bet.evaluations.items())
    return {"graders": bet.graders} | {key: g for key, g in own if isinstance(g, dict)}


def is_grade(quantity: str) -> bool:
    """Whether it is an answer's, and none of what stands beside a grade."""
    scores, beside = ("logP", "logP_first", "acc", "acc_norm"), (KNOWN, UNJUDGED, ELSEWHERE, ERROR)
    return quantity not in scores and quantity.rpartition(".")[2] not in beside


def quantities_of(name: str, grader: Grader) -> dict[str, Range]:
    """What a grader observes: its grade, and how far it could make one."""
    span = SHARE if grader.scale is None else (float(grader.scale[0]), float(grader.scale[1]))
    found = {name: span}
    if isinstance(grader.options, dict) or len(grader.options or ()) > 2:
        found |= {f"{name}.{label}": SHARE for label in grader.labels if label.isidentifier()}
    if grader.second is not None:
        found[f"{name}.{SECOND}"] = span
    if grader.rule in _FALLIBLE:
        found[f"{name}.{UNJUDGED}"] = SHARE
    if grader.judge is not None:
        found[f"{name}.{ELSEWHERE}"] = SHARE
    if grader.samples is not None:
        found[f"{name}.{ERROR}"] = (0.0, span[1] - span[0])
    return found


@dataclass
class Grading:
    """The graders of one evaluation at work; `judgements` are the judges' answers."""

    bet: Bet
    evaluation: str
    seed: int
    judgements: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]]
    )

    def __post_init__(self) -> None:
        spec = self.bet.evaluations[self.evaluation]
        self.asked = graders_of(self.bet, self.evaluation, spec)
        own = spec.graders if isinstance(spec.graders, dict) else {}
        self._known = {**self.bet.graders, **own}
        self._is_own = own.keys()
        self._listed = [q for name, of in self.asked.items() for q in quantities_of(name, of)]
        self._gates = {
            name: [_gate(gate, self.where(name)) for gate in grader.gates]
            for name, grader in self.asked.items()
            if grader.gates
        }
        further = [of.partition(".")[0] for gates in self._gates.values() for of, *_ in gates]
        self.needed = {name: self._known[name] for name in (*self.asked, *further)}
        """Also those that gates are of."""
        self._judgings = {name: list(self._judged_by(name)) for name in self.needed}

    @property
    def judgings(self) -> list[Judging]:
        """What judges are asked about every answer."""
        return [judging for of in self._judgings.values() for judging in of]

    def where(self, name: str) -> str:
        """A grader's key."""
        return (
            f"evaluations.{self.evaluation}.graders.{name}"
            if name in self._is_own
            else f"graders.{name}"
        )

    def _judged_by(self, name: str) -> Iterator[Judging]:
        grader = self.needed[name]
        of = f"{self.evaluation}.{name}" if name in self._is_own else name
        for number, judge in enumerate(grader.judges):
            called = f"judged-{of}" + "-second" * number
            yield Judging(called, grader, judge, self.where(name), self.seed)

    def check(self, row: Row) -> None:
        """Raises SettingsError for a column that a rule or a judge's prompt wants and the row lacks."""
        for judging in self.judgings:
            judging.prompt("", row)
        for name, grader in self.needed.items():
            if grader.judge is None and not grader.gates:
                _by_rule(grader, "", row, self.where(name))

    def grades(self, answer: str, row: Row) -> dict[str, Range]:
        """Every number of an answer.

        Raises:
            SettingsError: a column of a rule does not exist, or is no number where one is wanted.
        """
        found: dict[str, Range] = {}
        for name, grader in self.needed.items():
            if not grader.gates:
                found |= self._graded(name, answer, row)
        for name, gates in self._gates.items():
            found[name] = _gated(gates, found, every=self.asked[name].all_of is not None)
        return {quantity: found[quantity] for quantity in self._listed}

    def _graded(self, name: str, answer: str, row: Row) -> dict[str, Range]:
        grader, where = self.needed[name], self.where(name)
        if grader.judge is None:
            low, high = _by_rule(grader, answer, row, where)
            unjudged = {f"{name}.{UNJUDGED}": (float(low < high), float(low < high))}
            return {name: (low, high)} | (unjudged if grader.rule in _FALLIBLE else {})
        first, *second = (
            one.judged(self.judgements[one.name][one.prompt(answer, row)[1]])
            for one in self._judgings[name]
        )
        found = {name: first.grade, f"{name}.{UNJUDGED}": first.unjudged}
        found |= {f"{name}.{label}": share for label, share in first.shares.items()}
        found[f"{name}.{ELSEWHERE}"] = first.elsewhere
        if grader.samples is not None:
            found[f"{name}.{ERROR}"] = first.error
        return found | {f"{name}.{SECOND}": one.grade for one in second}


def _gated(gates: Sequence[Gate], found: Grades, *, every: bool) -> Range:
    """1 where every comparison, or any, holds; what intervals leave open may be both."""
    holds = [settled(*found[of], comparison, threshold) for of, comparison, threshold in gates]
    among = all if every else any
    return float(among(h is True for h in holds)), float(among(h is not False for h in holds))


def _by_rule(grader: Grader, answer: str, row: Row, where: str) -> Range:
    """The number of one answer by a rule; all that it could be where the rule itself failed."""
    rule = grader.rule
    if rule in _FALLIBLE:
        found = _by_library(grader, answer, row, where)
        return SHARE if found is None else (float(found), float(found))
    number = _number(grader, answer, row, where)
    return number, number


def _by_library(grader: Grader, answer: str, row: Row, where: str) -> bool | None:
    """What a library says of an answer, None where it fails."""
    if grader.math is not None:
        return _is_worth(answer, fill(grader.math, row, where), where)
    if grader.json_schema is not None:
        return _is_allowed(answer, grader.json_schema)
    if not any(character.isalpha() for character in answer):
        return False  # it is in no language
    return _languages(answer)[0] == grader.language


def _languages(text: str) -> list[str]:
    """Codes, the likeliest first, by py3langid: a naive Bayes classifier of byte n-grams."""
    from py3langid import langid

    return [code for code, _ in langid.rank(text)]


def _is_worth(answer: str, wanted: str, where: str) -> bool | None:
    """Whether an answer comes to what is wanted (https://github.com/huggingface/Math-Verify)."""
    import math_verify
    from math_verify.errors import TimeoutException

    gold = _mathematics(wanted)
    if all(isinstance(one, str) for one in gold):
        raise SettingsError(f"{where}.math: '{wanted}' is no mathematics that math-verify can read")
    try:
        found = math_verify.parse(answer, raise_on_error=True)
        return math_verify.verify(list(gold), found, raise_on_error=True)
    except (Exception, TimeoutException):  # whatever a computer algebra system meets in words
        return None


@cache
def _mathematics(text: str) -> tuple[Any, ...]:
    import math_verify

    return tuple(math_verify.parse(f"${text}$") or math_verify.parse(text))


def _is_allowed(answer: str, schema: Mapping[str, Any]) -> bool | None:
    """Whether a schema allows the JSON in an answer, from its first brace or bracket on."""
    import jsonschema
    import referencing
    from referencing.exceptions import Unresolvable

    value = _json(answer)
    if value is None:
        return False
    try:  # without the registry it would fetch what a reference names
        registry = referencing.Registry()
        return jsonschema.Draft202012Validator(schema, registry=registry).is_valid(value[0])
    except (Unresolvable, RecursionError):
        return None


def _number(grader: Grader, answer: str, row: Row, where: str) -> float:
    rule = grader.rule
    if rule == "regex":
        flags = re.IGNORECASE if grader.ignore_case else re.NOFLAG
        return float(re.search(grader.regex or "", answer, flags) is not None)
    if rule == "share_of_letters":
        letters = [character for character in answer if character.isalpha()]
        alike = sum(getattr(letter, f"is{grader.share_of_letters}")() for letter in letters)
        return alike / len(letters) if letters else 0.0
    wanted = fill(getattr(grader, "equals" if rule == "json_field" else rule), row, where)
    if rule == "number":
        return float(_ends_with_number(answer, wanted, grader.tolerance, where))
    found = _json_field(answer, grader.json_field) if rule == "json_field" else answer
    if found is None:
        return 0.0
    if grader.ignore_case:
        found, wanted = found.casefold(), wanted.casefold()
    if rule in ("exact", "starts_with"):
        found, wanted = found.strip(), wanted.strip()
    means = {"contains": str.__contains__, "starts_with": str.startswith}
    return float(means.get(rule, str.__eq__)(found, wanted))


def _ends_with_number(answer: str, text: str, tolerance: float, where: str) -> bool:
    """Whether the last number of an answer is the one of a text."""
    try:
        wanted = float(text.replace(",", ""))
    except ValueError as error:
        raise SettingsError(f"{where}.number: '{text}' is no number") from error
    found = _NUMBER.findall(answer.replace("−", "-"))
    return bool(found) and abs(float(found[-1].replace(",", "")) - wanted) <= tolerance


def _json_field(answer: str, path: str | None) -> str | None:
    """A field of the answer that is JSON, as text."""
    found = _json(answer)
    if found is None:
        return None
    value = found[0]
    try:
        for key in (path or "").split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, LookupError, TypeError):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _json(answer: str) -> tuple[Any] | None:
    """The value of the JSON in an answer: models like to write around it."""
    starts = [place for sign in "{[" if (place := answer.find(sign)) >= 0]
    try:
        start = min(starts)
        end = answer.rindex("}" if answer[start] == "{" else "]") + 1
        return (json.loads(answer[start:end]),)
    except (ValueError, RecursionError):
        return None
