"""How a bet is decided: its claims and checks, as written in its file, judged by the observations.

The author of a claim fixes its criteria before anything is trained. A criterion is settled when its
whole interval lies on one side of the threshold; one that is surely missed decides a conjunction, and a
check that fails leaves the claim undecided. A claim is about arms, of which a training is an example:
with fewer than three of one there is no verdict.

A claim comes out wrongly with a probability of at most 1 - confidence, whatever is true: a conjunction of
n criteria holds wrongly only if one that is missed seems met, and fails wrongly if any of them seems
missed, so each has (1 - confidence) / n outside its interval on either side, for one criterion half of it.
Several claims share one rate (Holm 1979, Scand. J. Stat. 6).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.schema import did_you_mean
from kaarel_bet.bet.evaluation import Evaluator, beyond_range, distance, foregone
from kaarel_bet.bet.expressions import (
    Aggregate,
    Comparing,
    Comparison,
    ExpressionError,
    Node,
    Observed,
    Operation,
    as_constant,
    observed_in,
    parse_criterion,
    parse_number,
    replaced,
)
from kaarel_bet.bet.observations import Observations, Vocabulary
from kaarel_bet.bet.schema import (
    AllOf,
    Also,
    AnyOf,
    Bet,
    BetBase,
    Claim,
    Condition,
    NoLeak,
    Reading,
    Surely,
    Sweep,
    These,
)
from kaarel_bet.bet.tables import check_no_leak
from kaarel_bet.claims import Check, Criterion, Outcome, Verdict, criterion, settled
from kaarel_bet.estimates import Estimate

LEAVE_ONE_OUT = "leave_one_out"
"""The check that no single cluster of rows turns a criterion; its value in the file is true."""

FEWEST_TRAININGS = 3
"""Of every arm that a claim is about."""

_OPPOSITE: dict[Comparison, Comparison] = {">": "<", ">=": "<=", "<": ">", "<=": ">="}

KeyPath = tuple[str | int, ...]


# --- before anything is trained ----------------------------------------------------------------------


def check_claims(bet: BetBase, vocabulary: Vocabulary) -> None:
    """Reads every expression of the bet.

    Raises:
        ExpressionError: one is none, names something that does not exist, or can only come out one way.
    """
    for name, claim in bet.claims.items():
        for path, text in _expressions(claim.criteria, ("claims", name, "criteria")):
            _at(path, lambda text=text: _check_criterion(text, vocabulary))
        for place, reading in enumerate(claim.readings):
            path = ("claims", name, "readings", place)
            _at(path, lambda r=reading, c=claim: _check_replaced(r, c))
            for _, criteria in _at(path, lambda r=reading, c=claim: list(_readings(r, c))):
                for _, text in _expressions(criteria, path):
                    _at(path, lambda text=text: parse_criterion(text, vocabulary))
        unknown = set(claim.checks or ()) - set(bet.checks)
        if unknown:
            hint = did_you_mean(min(unknown), bet.checks)
            raise ExpressionError(f"no check '{min(unknown)}'; {hint}", ("claims", name, "checks"))
    if bet.sweep is not None:
        _check_sweep(bet, bet.sweep)
    for name, check in bet.checks.items():
        if isinstance(check, NoLeak):
            _check_tables(bet, check, ("checks", name))
        elif isinstance(check, bool):
            if not (name == LEAVE_ONE_OUT and check):
                raise ExpressionError("must be an expression", ("checks", name))
        elif name == LEAVE_ONE_OUT:
            what = f"must be true; an expression wants another name than {LEAVE_ONE_OUT}"
            raise ExpressionError(what, ("checks", name))
        else:
            for path, text in _expressions((check,), ("checks", name)):
                _at(path, lambda text=text: _check_criterion(text, vocabulary))
    for place, further in enumerate(bet.report.also):
        text = further.expression if isinstance(further, Also) else further
        _at(("report", "also", place), lambda text=text: parse_number(text, vocabulary))


def _at(path: KeyPath, check: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return check()
    except ExpressionError as error:
        raise ExpressionError(error.message, path, error.column) from error


def _check_criterion(text: str, vocabulary: Vocabulary) -> None:
    comparing = parse_criterion(text, vocabulary)
    if wrong := beyond_range(comparing):
        raise ExpressionError(wrong)
    certain = foregone(comparing)
    if certain is not None:
        raise ExpressionError(f"'{text.strip()}' can never {'fail' if certain else 'hold'}")


def _check_replaced(reading: Reading, claim: Claim) -> None:
    """Raises ExpressionError for a name to be replaced that no criterion has."""
    texts = [text for _, text in _expressions(reading.criteria or claim.criteria, ("criteria",))]
    for name in reading.replace:
        if all(replaced(text, {name: "x"}) == replaced(text, {}) for text in texts):
            raise ExpressionError(f"'{name}' stands in no criterion, so nothing would be replaced")


def _check_sweep(bet: BetBase, sweep: Sweep) -> None:
    if sweep.best_for not in bet.claims:
        hint = did_you_mean(sweep.best_for, bet.claims)
        raise ExpressionError(f"no claim '{sweep.best_for}'; {hint}", ("sweep", "best_for"))
    tables = bet.data if isinstance(bet, Bet) else {}
    if sweep.confirm is not None and sweep.confirm.of not in tables:
        hint = did_you_mean(sweep.confirm.of, tables) if tables else "there is none"
        where = ("sweep", "confirm", "of")
        raise ExpressionError(f"no table '{sweep.confirm.of}'; {hint}", where)


def _check_tables(bet: BetBase, check: NoLeak, path: KeyPath) -> None:
    tables = bet.table_names if isinstance(bet, Bet) else []
    for name in check.between:
        if name not in tables:
            hint = did_you_mean(name, tables)
            raise ExpressionError(f"no table '{name}'; {hint}", (*path, "between"))


def _expressions(conditions: Sequence[Condition], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every expression of some conditions, and where it stands."""
    for place, condition in enumerate(conditions):
        where = (*path, place) if len(conditions) > 1 or path[-1] == "criteria" else path
        match condition:
            case str():
                yield where, condition
            case Surely():
                yield (*where, "surely"), condition.surely
            case These():
                yield (*where, "these"), condition.these
            case AnyOf():
                yield from _expressions(condition.any_of, (*where, "any_of"))
            case AllOf():
                yield from _expressions(condition.all_of, (*where, "all_of"))


def _mapped(condition: Condition, change: Callable[[str], str]) -> Condition:
    match condition:
        case str():
            return change(condition)
        case Surely():
            return Surely(surely=change(condition.surely))
        case These():
            return These(these=change(condition.these))
        case AnyOf():
            return AnyOf(any_of=tuple(_mapped(one, change) for one in condition.any_of))
        case AllOf():
            return AllOf(all_of=tuple(_mapped(one, change) for one in condition.all_of))


def _readings(
    reading: Reading, claim: Claim
) -> Iterator[tuple[dict[str, str], tuple[Condition, ...]]]:
    """What is replaced, and the criteria that it leaves, for every combination."""
    written = reading.criteria or claim.criteria
    options = [[to] if isinstance(to, str) else list(to) for to in reading.replace.values()]
    for chosen in itertools.product(*options):
        names = dict(zip(reading.replace, chosen, strict=True))
        yield names, tuple(_mapped(one, lambda text, n=names: replaced(text, n)) for one in written)


# --- afterwards ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadingFound:
    """The criteria read otherwise, and what they say before the checks."""

    replaced: dict[str, str]
    rewritten: bool
    criteria: tuple[Criterion, ...]
    holds: bool | None

    @property
    def words(self) -> str:
        """How it is read."""
        changes = [f"{old} as {new}" for old, new in self.replaced.items() if old != new]
        return ", ".join(["criteria written otherwise"] * self.rewritten + changes) or "as agreed"

    @property
    def outcome(self) -> Outcome:
        """What the criteria alone say."""
        return _OUTCOMES[self.holds]


_OUTCOMES: dict[bool | None, Outcome] = {True: "holds", False: "fails", None: "undecided"}


@dataclass(frozen=True)
class Agreed:
    """A criterion as an expression compared with a number."""

    node: Node
    comparison: Comparison
    threshold: float
    text: str

    @classmethod
    def of(cls, comparing: Comparing) -> "Agreed":
        """Of any comparison: that of two expressions is about their difference."""
        right = as_constant(comparing.right)
        if right is not None:
            return cls(comparing.left, comparing.comparison, right, comparing.text)
        left = as_constant(comparing.left)
        if left is not None:
            opposite = _OPPOSITE[comparing.comparison]
            return cls(comparing.right, opposite, left, comparing.right_text)
        difference = Operation("-", comparing.left, comparing.right, "number")
        text = f"{comparing.text} - ({comparing.right_text})"
        return cls(difference, comparing.comparison, 0.0, text)


@dataclass
class Judge:
    """Decides one bet's claims on one run's observations."""

    bet: BetBase
    vocabulary: Vocabulary
    observations: Observations
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    seed: int

    @cached_property
    def evaluator(self) -> Evaluator:
        """Where expressions get their values."""
        return Evaluator(self.observations, self.seed)

    @property
    def rate(self) -> float:
        """Of wrong verdicts: less for the settings that were tried before (Bonferroni)."""
        return (1 - self.bet.intervals.confidence) / self.bet.intervals.settings_tried

    @property
    def confidence(self) -> float:
        """Of an interval that stands alone."""
        return 1 - self.rate

    def estimate(self, expression: str) -> Estimate:
        """The value and interval of an expression by itself. Raises ExpressionError."""
        return self._estimate(parse_number(expression, self.vocabulary), self.rate / 2)

    def value(self, expression: str) -> float:
        """That of an expression. Raises ExpressionError."""
        return self.evaluator.value(parse_number(expression, self.vocabulary))

    def verdicts(self) -> tuple[Verdict, ...]:
        """What became of every claim."""
        checks = {name: self._check(name, check) for name, check in self._checks().items()}
        undecided, found = list(self.bet.claims), dict[str, Verdict]()
        while undecided:
            rate = self.rate / len(undecided)
            at_rate = {name: self._verdict(name, checks, rate) for name in undecided}
            decided = {name: one for name, one in at_rate.items() if one.outcome != "undecided"}
            found |= decided or at_rate
            undecided = [name for name in undecided if name not in found]
        return tuple(found[name] for name in self.bet.claims)

    def readings(self, claim: str) -> list[ReadingFound]:
        """The claim's criteria in every other reading, and first as agreed, if there are others."""
        written = self.bet.claims[claim]
        found = {
            criteria: ReadingFound(
                names, bool(reading.criteria), *self._judged(criteria, self.rate)
            )
            for reading in (Reading(), *written.readings)
            for names, criteria in _readings(reading, written)
        }
        return list(found.values()) if written.readings else []

    def carried(self, claim: str) -> list[str]:
        """How much of every mean of probabilities in its readings is of a single row, in words."""
        written = self.bet.claims[claim]
        texts = {
            text
            for reading in (Reading(), *written.readings)
            for _, criteria in _readings(reading, written)
            for _, text in _expressions(criteria, ("criteria",))
        }
        nodes = [Agreed.of(parse_criterion(text, self.vocabulary)).node for text in sorted(texts)]
        return list(dict.fromkeys(words for node in nodes for words in self._largest_shares(node)))

    def thresholds(self) -> dict[str, float]:
        """Label -> the level that a criterion compares one aggregated probability with."""
        return {
            f"threshold {one.threshold:g}": one.threshold
            for one, _ in self.agreed()
            if isinstance(one.node, Aggregate)
            and one.threshold
            and all(isinstance(a, Observed) and a.exponential for a in one.node.arguments)
        }

    def margin(self, claim: str) -> float:
        """How far the criterion that is worst met is on its side, in half-widths of its interval."""
        found = []
        for one, tail in self.agreed(claim):
            half, is_log = self.evaluator.half_width(one.node, tail)
            value = self.evaluator.value(one.node)
            ahead = distance(value, one.threshold, is_log=is_log)
            ahead *= 1 if one.comparison in (">", ">=") else -1
            found.append(ahead / half if half else math.copysign(math.inf, ahead))
        return min(found)

    def agreed(self, name: str | None = None) -> Iterator[tuple[Agreed, float]]:
        """A claim's criteria, or all of them, and what is outside of their intervals on either side."""
        for claim in self.bet.claims.values() if name is None else [self.bet.claims[name]]:
            tail = self._tail(claim.criteria, self.rate)
            for _, text in _expressions(claim.criteria, ("criteria",)):
                yield Agreed.of(parse_criterion(text, self.vocabulary)), tail

    # --- claims ------------------------------------------------------------------------------------

    def _verdict(self, name: str, checks: dict[str, Check], rate: float) -> Verdict:
        claim = self.bet.claims[name]
        criteria, holds = self._judged(claim.criteria, rate)
        wanted = checks if claim.checks is None else claim.checks
        rests_on = [checks[check] for check in wanted if check in checks]
        against = [f"the check '{check.name}' failed" for check in rests_on if not check.passed]
        if few := self.too_few(claim):
            against.insert(0, few)
        decided: Outcome = "undecided" if against else _OUTCOMES[holds]
        return Verdict(
            name=name,
            claim=f"{claim.text or name}. As agreed before training: {self._agreed(claim, rate)}",
            outcome=decided,
            summary=_in_plain_words(claim, decided, criteria, against),
            criteria=criteria,
            checks=tuple(rests_on),
        )

    def too_few(self, claim: Claim) -> str | None:
        """Why there can be no verdict, if an arm was not trained often enough."""
        found: dict[str, int] = {}
        for _, text in _expressions(claim.criteria, ("criteria",)):
            criterion = parse_criterion(text, self.vocabulary)
            found |= self.evaluator.trainings(criterion, self.vocabulary.untrained)
        few = {arm: n for arm, n in found.items() if n < FEWEST_TRAININGS}
        if not few:
            return None
        times = {1: "once", 2: "twice"}
        words = ", ".join(f"{arm} {times[n]}" for arm, n in few.items())
        return (
            f"trained too seldom to know how much trainings differ ({words}): a verdict needs "
            f"{FEWEST_TRAININGS} trainings of every arm, replicate: {{training: {FEWEST_TRAININGS}}}"
        )

    def _agreed(self, claim: Claim, rate: float) -> str:
        by = self.bet.intervals
        rows = "rows" if by.cluster == "row" else f"clusters of rows by {by.cluster}"
        confidence = 100 * (1 - 2 * self._tail(claim.criteria, rate))
        return (
            f"{' and '.join(in_words(one) for one in claim.criteria)}; with {confidence:.4g} % "
            f"intervals over {rows} and trainings"
        )

    def _tail(self, conditions: Sequence[Condition], rate: float) -> float:
        """What is outside of each criterion's interval on either side."""
        return rate / max(2, len(list(_expressions(conditions, ("criteria",)))))

    def _judged(
        self, conditions: Sequence[Condition], rate: float
    ) -> tuple[tuple[Criterion, ...], bool | None]:
        """Every criterion, and whether all conditions hold: surely, surely not, or neither."""
        criteria: list[Criterion] = []
        tail = self._tail(conditions, rate)

        def judge(condition: Condition) -> bool | None:
            match condition:
                case str() | Surely() | These():
                    text = _text(condition)
                    found = self._criterion(parse_criterion(text, self.vocabulary), tail)
                    criteria.append(found)
                    return found.holds
                case AnyOf():
                    return _any([judge(one) for one in condition.any_of])
                case AllOf():
                    return _all([judge(one) for one in condition.all_of])

        holds = _all([judge(condition) for condition in conditions])
        return tuple(dict.fromkeys(criteria)), holds

    def _criterion(self, comparing: Comparing, tail: float) -> Criterion:
        agreed = Agreed.of(comparing)
        estimate = self._estimate(agreed.node, tail)
        return criterion(agreed.text, estimate, agreed.comparison, agreed.threshold)

    def _estimate(self, node: Node, tail: float) -> Estimate:
        if self.bet.intervals.method == "bootstrap":
            return self.evaluator.bootstrap(node, tail)
        return self.evaluator.student(node, tail)

    # --- checks ------------------------------------------------------------------------------------

    def _checks(self) -> dict[str, Condition | NoLeak]:
        """Those of the file; that no cluster decides alone comes last."""
        checks = {n: check for n, check in self.bet.checks.items() if not isinstance(check, bool)}
        if self.bet.checks.get(LEAVE_ONE_OUT):
            checks[LEAVE_ONE_OUT] = ""
        return checks

    def _check(self, name: str, check: Condition | NoLeak) -> Check:
        title = name.replace("_", " ")
        if isinstance(check, NoLeak):
            one, other = (self.tables[table] for table in check.between)
            found = check_no_leak(one, other, check.on)
            detail = (
                f"{found} of {len(other)} rows of {check.between[1]} have a {check.on} that stands in "
                f"{check.between[0]}; needed: 0"
            )
            return Check(name=title, passed=found == 0, detail=detail)
        if name == LEAVE_ONE_OUT:
            return self._leave_one_out(title)
        passed, detail = self._condition(check)
        return Check(name=title, passed=passed, detail=detail)

    def _condition(self, condition: Condition) -> tuple[bool, str]:
        match condition:
            case AnyOf() | AllOf():
                inner = condition.any_of if isinstance(condition, AnyOf) else condition.all_of
                found = [self._condition(one) for one in inner]
                word = " or " if isinstance(condition, AnyOf) else "; "
                passed = any if isinstance(condition, AnyOf) else all
                return passed(p for p, _ in found), word.join(detail for _, detail in found)
            case Surely():
                return self._by_interval(parse_criterion(condition.surely, self.vocabulary))
            case These():
                return self._by_value(parse_criterion(condition.these, self.vocabulary))
            case str():
                comparing = parse_criterion(condition, self.vocabulary)
                # What no arm answered is about just these rows, of which all is known.
                of_arms = any(one.arm for one in observed_in(comparing))
                return self._by_interval(comparing) if of_arms else self._by_value(comparing)

    def _by_interval(self, comparing: Comparing) -> tuple[bool, str]:
        c = self._criterion(comparing, self.rate / 2)
        figures = f"{c.value:.3g} ({c.low:.3g} to {c.high:.3g})"
        return bool(c.holds), f"{c.name} is {figures}; needed: {c.comparison} {c.threshold:g}"

    def _by_value(self, comparing: Comparing) -> tuple[bool, str]:
        difference = Operation("-", comparing.left, comparing.right, "number")
        passed = settled(*self.evaluator.bounds(difference), comparing.comparison, 0.0)
        value, other = (self.evaluator.value(side) for side in (comparing.left, comparing.right))
        low, high = self.evaluator.bounds(comparing.left)
        known = "" if low == high else f" ({low:.3g} to {high:.3g})"
        needed = f"{comparing.comparison} {other:.4g}"
        return bool(passed), f"{comparing.text} is {value:.3g}{known}; needed: {needed}"

    def _leave_one_out(self, title: str) -> Check:
        """An interval covers less than it says where few rows carry a mean."""
        overturned: list[str] = []
        shares: list[str] = []
        n_left_out = 0
        by = self.bet.intervals.method == "bootstrap"
        for one, tail in self.agreed():
            whole = self._estimate(one.node, tail)
            agreed = settled(whole.low, whole.high, one.comparison, one.threshold)
            shares += self._largest_shares(one.node)
            for cluster, low, high in self.evaluator.without_each(one.node, tail, bootstrap=by):
                n_left_out += 1
                if (
                    agreed is not None
                    and settled(low, high, one.comparison, one.threshold) != agreed
                ):
                    overturned.append(f"without {cluster}, {one.text} is {low:.2g} to {high:.2g}")
        detail = (
            "no single one's absence overturns a criterion" if n_left_out else "there is only one"
        )
        return Check(
            name=title,
            passed=bool(n_left_out) and not overturned,
            detail="; ".join([*(overturned[:1] or [detail]), *dict.fromkeys(shares)]),
        )

    def _largest_shares(self, node: Node) -> Iterator[str]:
        """Whether few rows carry the means of probabilities, in words."""
        match node:
            case Operation():
                yield from self._largest_shares(node.left)
                yield from self._largest_shares(node.right)
            case Aggregate(function="mean", arguments=(Observed(exponential=True) as p,)):
                sample = self.evaluator.rows(p, middle=True)
                by_row = sample.low.mean(axis=0)
                if by_row.any():
                    largest = int(by_row.argmax())
                    of = f"{_function(p)}({p.candidate} | {p.question}, {p.arm})"
                    share = by_row[largest] / by_row.sum()
                    yield f"the largest share of mean({of}) is {share:.0%} ({sample.clusters[largest]})"


def _text(condition: str | Surely | These) -> str:
    match condition:
        case str():
            return condition
        case Surely():
            return condition.surely
        case These():
            return condition.these


def _function(p: Observed) -> str:
    return "P_first" if p.quantity == "logP_first" else "P"


def _all(parts: Sequence[bool | None]) -> bool | None:
    """What is surely missed decides, whatever else is open (Kleene's three-valued "and")."""
    return False if False in parts else None if None in parts else True


def _any(parts: Sequence[bool | None]) -> bool | None:
    return True if True in parts else None if None in parts else False


def in_words(condition: Condition) -> str:
    """A condition as written, on one line."""
    match condition:
        case str():
            return " ".join(condition.split())
        case Surely() | These():
            return _text(condition)
        case AnyOf():
            return f"({' or '.join(in_words(one) for one in condition.any_of)})"
        case AllOf():
            return f"({' and '.join(in_words(one) for one in condition.all_of)})"


def _in_plain_words(
    claim: Claim, decided: Outcome, criteria: Sequence[Criterion], against: Sequence[str]
) -> str:
    figures = "; ".join(
        f"{c.name} is {c.value:.2g} ({c.low:.2g} to {c.high:.2g}; needed: {c.comparison} "
        f"{c.threshold:g})"
        for c in criteria
    )
    if decided == "undecided":
        straddling = [f"{c.name} straddles {c.threshold:g}" for c in criteria if c.holds is None]
        reasons = "; ".join([*against, *straddling])
        return f"{claim.undecided.rstrip('.')}: {reasons}. {figures}."
    words = claim.holds if decided == "holds" else claim.fails
    missed = [c.name for c in criteria if c.holds is False]
    note = f" Not met: {'; '.join(missed)}." if decided == "fails" else ""
    return f"{words.rstrip('.')}. {figures}.{note}"
