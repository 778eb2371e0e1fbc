"""The report's sections about graded answers: what could be judged, what judges are worth, extremes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from kaarel_bet.bet.graders import ELSEWHERE, ERROR, KNOWN, SECOND, UNJUDGED, is_grade
from kaarel_bet.bet.observations import SHARE, Observation
from kaarel_bet.bet.prompts import fill
from kaarel_bet.bet.report_evidence import Evidence, Pair, Run
from kaarel_bet.content import Section, Table

_MOST_SHOWN = 20
"""Unjudged answers that are quoted."""

_QUOTED = 300
"""Characters of an answer in a table."""

_BINS = 5


def judge_sections(seen: Evidence) -> Iterator[Section]:
    """Of a bet with graders that may come to nothing."""
    yield from _judged(seen)
    yield from _tried(seen)
    yield from _extremes(seen)


@dataclass(frozen=True)
class _Grade:
    """A grader of a question, and an arm that was asked it."""

    name: str
    pair: Pair

    @property
    def of(self) -> str:
        """What is between the brackets of an expression."""
        return ", ".join(filter(None, reversed(self.pair)))


def _grades(seen: Evidence) -> list[_Grade]:
    """Graders, and not what stands beside their grades."""
    questions = seen.judge.vocabulary.questions.values()
    names = dict.fromkeys(q for question in questions for q in question.quantities)
    plain = [name for name in names if is_grade(name) and "." not in name]
    return [_Grade(name, pair) for name in plain for pair in seen.pairs(name)]


# --- what could be judged ----------------------------------------------------------------------------


def _judged(seen: Evidence) -> Iterator[Section]:
    rows, unjudged = [], list[tuple[str, ...]]()
    for one in _grades(seen):
        runs = seen.runs(f"{one.name}.{UNJUDGED}", one.pair)
        if not runs:
            continue
        elsewhere = [o for run in seen.runs(f"{one.name}.{ELSEWHERE}", one.pair) for o in run]
        second = f"{one.name}.{SECOND}"
        agree = "-"
        if seen.runs(second, one.pair):
            agree = f"{1 - seen.judge.value(f'agreement({one.name}({one.of}), {second}({one.of}))'):.2g}"
        marks = [o for run in runs for o in run]
        least, most = (int(sum(getattr(o, end) for o in marks)) for end in ("low", "high"))
        n = f"{least} of {len(marks)}" if least == most else f"{least} to {most} of {len(marks)}"
        errors = [o for run in seen.runs(f"{one.name}.{ERROR}", one.pair) for o in run]
        beside = (_between(elsewhere), _between(errors), agree)
        rows.append((one.name, *seen.labels(one.pair), n, *beside))
        unjudged += [
            (one.name, *seen.labels(one.pair), _place(o), _cut(text))
            for o, text in _texts(seen, runs)
            if o.high > 0
        ]
    if not rows:
        return
    further = ("on no label", "standard error", "second judge differs")
    columns = ("grader", *seen.headings, "unjudged", *further)
    tables = [Table(columns, rows)]
    if unjudged:
        tables.append(
            Table(("grader", *seen.headings, "row", "unjudged answer"), unjudged[:_MOST_SHOWN])
        )
    left = len(unjudged) - _MOST_SHOWN
    more = f" {left} more unjudged answers are not shown." if left > 0 else ""
    yield Section("What could be judged", _UNJUDGED + more, tables)


_UNJUDGED = (
    "An answer is unjudged where more of the judge's probability than the bet allows is on none of the "
    "labels, or where a rule could make nothing of it. It then counts as everything that the grade can be, "
    "so that intervals widen; it is never taken for the least, and never left out."
)


def _between(observed: Sequence[Observation]) -> str:
    """The mean, or the least and the greatest that it can be."""
    if not observed:
        return "-"
    low, high = fmean(o.low for o in observed), fmean(o.high for o in observed)
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


# --- what judges are worth ---------------------------------------------------------------------------


def _tried(seen: Evidence) -> Iterator[Section]:
    """Grades of answers for which it is known what they should be."""
    rows, bins = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for one in _grades(seen):
        known = seen.runs(f"{one.name}.{KNOWN}", one.pair)
        if not known:
            continue
        grades = seen.runs(one.name, one.pair)[0]
        pairs = [(_middle(g), k.low) for g, k in zip(grades, known[0], strict=True)]
        question = seen.judge.vocabulary.questions[one.pair[1]]
        least, most = question.quantities[one.name]
        off = fmean(abs(grade - wanted) for grade, wanted in pairs)
        row = (one.name, one.pair[1], f"{len(pairs)}", f"{off:.2g}")
        is_yes_or_no = {wanted for _, wanted in pairs} <= {0.0, 1.0}
        if is_yes_or_no and question.quantities[f"{one.name}.{KNOWN}"] == SHARE:
            shares = [((grade - least) / (most - least), wanted) for grade, wanted in pairs]
            brier = fmean((share - wanted) ** 2 for share, wanted in shares)
            off = fmean(abs(share - wanted) for share, wanted in shares)
            between = f"({one.name}({one.of}), {one.name}.{KNOWN}({one.of}))"
            estimates = (seen.judge.estimate(f"{what}{between}") for what in ("agreement", "kappa"))
            ends = ((round(x, 9) for x in (e.value, e.low, e.high)) for e in estimates)
            words = ("{:.2g} ({:.2g} to {:.2g})".format(*numbers) for numbers in ends)
            row = (*row[:3], f"{off:.2g}", *words, f"{brier:.2g}")
            bins += _bins(one, shares)
        rows.append((*row, *["-"] * (7 - len(row))))
    if not rows:
        return
    columns = (
        "grader",
        "answers",
        "n",
        "off by, on average",
        "accuracy",
        "Cohen's kappa",
        "Brier score",
    )
    tables = [Table(columns, rows, compact=True)]
    if bins:
        tables.append(Table(("grader", "answers", "grade, of its scale", "n", "known to be"), bins))
    yield Section("What the judges are worth", _WORTH, tables)


_WORTH = (
    "Answers of which it is known what they should be graded, put to the same judges in the same words. "
    "Accuracy and kappa (Cohen 1960) take a grade for yes above the middle of its scale; a kappa of 0 is "
    "what chance gives. The Brier score is the mean squared distance, of a scale from 0 to 1. A judge that "
    "is well calibrated has in the second table what is known near the grade."
)


def _bins(one: _Grade, shares: Sequence[tuple[float, float]]) -> Iterator[tuple[str, ...]]:
    by_bin: defaultdict[int, list[float]] = defaultdict(list)
    for share, wanted in shares:
        by_bin[min(_BINS - 1, int(share * _BINS))].append(wanted)
    for place, wanted in sorted(by_bin.items()):
        span = f"{place / _BINS:g} to {(place + 1) / _BINS:g}"
        yield one.name, one.pair[1], span, f"{len(wanted)}", f"{fmean(wanted):.2g}"


# --- extremes ----------------------------------------------------------------------------------------


def _extremes(seen: Evidence) -> Iterator[Section]:
    """Of each grader, question and arm the answers with the least and the greatest grade."""
    rows = []
    for one in _grades(seen):
        found = [(o, text) for o, text in _texts(seen, seen.runs(one.name, one.pair)) if text]
        sure = [(o, text) for o, text in found if o.low == o.high]
        if len({o.low for o, _ in sure}) < 2:
            continue  # none is more extreme than another
        for o, text in (min(sure, key=lambda f: f[0].low), max(sure, key=lambda f: f[0].low)):
            rows.append((one.name, *seen.labels(one.pair), f"{o.low:.3g}", _place(o), _cut(text)))
    if rows:
        columns = ("grader", *seen.headings, "grade", "row", "answer")
        text = "The first answer with the least grade, and the first with the greatest."
        yield Section("The most extreme answers", text, [Table(columns, rows)])


def _place(one: Observation) -> str:
    """Which answer it is: its row, and of which training."""
    return one.row if one.replicate == 1 else f"{one.row}, training {one.replicate}"


def _texts(seen: Evidence, runs: Iterable[Run]) -> Iterator[tuple[Observation, str]]:
    """Every observation of answers in words with the answer."""
    for run in runs:
        texts = [text for result in seen.results(run) for text in result.texts]
        if not run[0].arm:
            spec = seen.evaluation(run[0].question)
            rows = {row["id"]: row for row in seen.answers.tables[spec.rows or ""]}
            texts = [fill(spec.given or "", rows[o.row], "given") for o in run]
        yield from zip(run, texts, strict=True)


def _middle(one: Observation) -> float:
    return (one.low + one.high) / 2


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]} ..."
