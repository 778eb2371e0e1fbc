"""What makes a number of an answer: registered rules, 0 or 1 or a share."""

import json
import re
from collections.abc import Mapping
from typing import Any

from backends.errors import SettingsError
from kaarel_bet.bet.expressions import AGGREGATES, PROBABILITIES
from kaarel_bet.bet.observations import SHARE, Range
from kaarel_bet.bet.prompts import check_text, fill, unknown
from kaarel_bet.bet.schema import GRADER_RULES, Bet, Evaluation, Grader
from kaarel_bet.experiments.interface import Row

UNBUILT = ("judge", "all_of")
"""Rules that can't be run yet."""

_TAKEN = {*AGGREGATES, *PROBABILITIES, "acc", "acc_norm"}
_NUMBER = re.compile(
    r"(?:(?<![\w.])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_GATE = re.compile(r"\s*(\w+)\s*(?:>=?|<=?)\s*-?[\d.]+\s*")


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
            where, known = f"{key}.{name}", {**bet.graders, **graders}
            if name in _TAKEN:
                raise SettingsError(f"{where}: expressions call something else '{name}'; rename it")
            for rule in ("exact", "contains", "starts_with", "number", "equals", "prompt"):
                check_text(getattr(grader, rule) or "", f"{where}.{rule}")
            try:
                re.compile(grader.regex or "")
            except re.error as error:
                raise SettingsError(f"{where}.regex: {error}") from error
            if grader.judge is not None and grader.judge not in bet.models:
                raise unknown("model", grader.judge, bet.models, f"{where}.judge")
            for gate in grader.all_of or ():
                found = _GATE.fullmatch(gate)
                if found is None or found[1] not in known:
                    raise unknown("grader compared as in 'coherent > 50':", gate, known, where)


def unbuilt_graders(bet: Bet) -> str | None:
    """What can't be run yet: a judge or a gate."""
    rules = ", ".join(rule for rule in GRADER_RULES if rule not in UNBUILT)
    for key, graders in _written(bet).items():
        for name, grader in graders.items():
            if grader.rule in UNBUILT:
                what = f"judged answers can't be graded in this version; grade by a rule ({rules})"
                return f"{key}.{name}: {what}"
    return None


def _written(bet: Bet) -> Mapping[str, Mapping[str, Grader]]:
    """Key -> the graders that stand there."""
    own = ((f"evaluations.{name}.graders", e.graders) for name, e in bet.evaluations.items())
    return {"graders": bet.graders} | {key: g for key, g in own if isinstance(g, dict)}


def range_of(grader: Grader) -> Range:
    """The least and the most that it can say."""
    return SHARE if grader.scale is None else (float(grader.scale[0]), float(grader.scale[1]))


def grade(grader: Grader, answer: str, row: Row, where: str) -> float:
    """The number of one answer.

    Raises:
        SettingsError: a column of the rule does not exist, or is no number where one is wanted.
    """
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
    """Of the answer from its first brace to its last: models like to write around it."""
    try:
        value: Any = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])
        for key in (path or "").split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else json.dumps(value)
