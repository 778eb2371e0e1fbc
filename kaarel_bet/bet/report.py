"""The report's sections that every bet gets, from its observations."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.graders import is_grade
from kaarel_bet.bet.observations import Question, Range
from kaarel_bet.bet.planning import SUPPOSED, detectable
from kaarel_bet.bet.report_evidence import Evidence, Pair, Run, in_short, mean, run_label
from kaarel_bet.bet.report_judges import judge_sections
from kaarel_bet.bet.report_options import option_sections
from kaarel_bet.bet.schema import Also, Bet
from kaarel_bet.claims import Outcome
from kaarel_bet.content import Panel, PointFigure, Section, Table, Transcript
from kaarel_bet.experiments.interface import Answers, Asked

_MOST_SERIES = 4
_QUOTED = 2
"""Rows of each question whose answers are quoted."""


def sections(bet: Bet, answers: Answers, judge: Judge) -> list[Section]:
    """All that was observed, in tables and figures, and quoted answers."""
    seen = Evidence(bet, answers, judge)
    return [
        *_probabilities(seen),
        *option_sections(seen),
        *_grades(seen),
        *judge_sections(seen),
        *_quoted(seen),
    ]


def further_sections(judge: Judge) -> list[Section]:
    """What a bet asks for beside its claims, also one whose answers are shown by code of its own."""
    return [*_also(judge), *_readings(judge), *_planned(judge)]


def _planned(judge: Judge) -> Iterator[Section]:
    """What could have been known before training."""
    found = detectable(judge)
    lines = [(one.words, one.warning or "") for one in found]
    if lines:
        text = f"Before anything was trained, by the declared rows and trainings, {SUPPOSED}."
        yield Section("What could be shown", text, [Table(("criterion", "warning"), lines)])


# --- what was observed -------------------------------------------------------------------------------

_Column = tuple[str, str]
"""A quantity and, of probabilities, the candidate."""

_PROBABILITIES = (
    " over rows of the probability that the reply begins with the whole answer (nothing that would follow "
    "is scored, nor that nothing follows). In the figure one point is one row of one training, on a log "
    "scale; the bar is the median. Where few rows carry a mean, its interval covers less than it says."
)
_GRADES = (
    "Means over rows, samples and trainings, with their intervals. In the figure one point is one row of "
    "one training, a mean over its samples; the bar is the median."
)


def _probabilities(seen: Evidence) -> Iterator[Section]:
    """Of candidates, with the lines that criteria compare them with."""
    lines = {label: math.log10(level) for label, level in seen.judge.thresholds().items()}
    criteria = ["".join(str(claim.criteria).split()) for claim in seen.bet.claims.values()]
    families = _families(seen, lambda question: [("logP", c) for c in question.candidates])
    for columns, pairs in families.items():
        named = [
            (quantity, candidate)
            for quantity, candidate in columns
            if any(f"({candidate}|{q}," in text for _, q in pairs for text in criteria)
        ]
        name, of = _names(seen, pairs, families)
        panels = _panels(seen, pairs, named or columns, "P({})")
        label = "probability of the answer"
        figure = PointFigure(f"probabilities-{name}", label, panels, lines if named else {})
        content = _content(seen, pairs, columns, figure)
        text = f"{_aggregate(seen).capitalize()}s{_PROBABILITIES}"
        yield Section(f"Probability of each answer{of}", text, content)


def _grades(seen: Evidence) -> Iterator[Section]:
    """The numbers that graders make of sampled answers."""
    families = _families(
        seen, lambda question: [(q, "") for q in question.quantities if is_grade(q)]
    )
    for columns, pairs in families.items():
        name, of = _names(seen, pairs, families)
        quantities = seen.judge.vocabulary.questions[pairs[0][1]].quantities
        by_scale: dict[Range, list[_Column]] = {}
        for column in columns:
            by_scale.setdefault(quantities[column[0]], []).append(column)
        figures = []
        for span, alike in by_scale.items():
            called = f"grades-{name}" + f"-to-{span[1]:g}" * (len(by_scale) > 1)
            panels = _panels(seen, pairs, alike, "{}")
            figures.append(PointFigure(called, "grade", panels, log=False))
        yield Section(f"Grades{of}", _GRADES, _content(seen, pairs, columns, *figures))


_Families = dict[tuple[_Column, ...], list[Pair]]


def _families(seen: Evidence, columns_of: Callable[[Question], Iterable[_Column]]) -> _Families:
    """Who was asked what, by the columns that it is observed in."""
    questions = seen.judge.vocabulary.questions
    columns = {name: tuple(columns_of(question)) for name, question in questions.items()}
    return {
        together: pairs
        for together in dict.fromkeys(filter(None, columns.values()))
        if (pairs := [pair for pair in seen.pairs(*together[0]) if columns[pair[1]] == together])
    }


def _questions(seen: Evidence, pairs: Sequence[Pair]) -> list[str]:
    asked = {question for _, question in pairs}
    return [name for name in seen.judge.vocabulary.questions if name in asked]


def _names(seen: Evidence, pairs: Sequence[Pair], families: _Families) -> tuple[str, str]:
    """A figure's name by the evaluations, and the end of a title where there are other families."""
    names = dict.fromkeys(question.partition(".")[0] for question in _questions(seen, pairs))
    return "-".join(names), f": {', '.join(names)}" if len(families) > 1 else ""


def _content(
    seen: Evidence, pairs: Sequence[Pair], columns: Sequence[_Column], *figures: PointFigure
) -> list[Table | PointFigure]:
    """The means of all runs, the figure, and the means training by training where there are several."""
    headings = [c or q for q, c in columns]
    rows = [(*seen.labels(p), *(_cell(seen, p, column) for column in columns)) for p in pairs]
    by_run = [
        (*seen.labels(pair), run_label(runs[0]), *(in_short(_of_run(seen, run)) for run in runs))
        for pair in pairs
        for runs in zip(*(seen.runs(q, pair, c) for q, c in columns), strict=True)
    ]
    further = [Table((*seen.headings, "run", *headings), by_run)]
    table = Table((*seen.headings, *headings), rows, compact=True)
    return [table, *figures, *further * (len(by_run) > len(pairs))]


def _aggregate(seen: Evidence) -> str:
    """What probabilities are shown by: what the claims aggregate them with."""
    criteria = "".join(str(claim.criteria) for claim in seen.bet.claims.values())
    return "median" if "median(P" in criteria else "mean"


def _of_run(seen: Evidence, run: Run) -> float:
    if run[0].candidate and _aggregate(seen) == "median":
        return median(math.exp((one.low + one.high) / 2) for one in run)
    return mean([run])


def _cell(seen: Evidence, pair: Pair, column: _Column) -> str:
    quantity, candidate = column
    if candidate:
        of = f"{_aggregate(seen)}(P({candidate} | {pair[1]}, {pair[0]}))"
        return f"{seen.judge.value(of):.2g}"
    found = seen.estimate(pair, quantity)
    value, low, high = (in_short(x) for x in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _panels(
    seen: Evidence, pairs: Sequence[Pair], columns: Sequence[_Column], label: str
) -> list[Panel]:
    """A panel for every question, every row of every training a point: log10 of a probability."""

    def points(pair: Pair, column: _Column) -> list[float]:
        by_row: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
        unit = math.log(10) if column[0] == "logP" else 1
        for number, run in enumerate(seen.runs(column[0], pair, column[1])):
            for one in run:
                by_row[number, one.row].append((one.low + one.high) / 2 / unit)
        return [sum(parts) / len(parts) for parts in by_row.values()]

    shown = columns[:_MOST_SERIES]
    return [
        Panel(
            question,
            {
                pair[0]: {label.format(c or q): points(pair, (q, c)) for q, c in shown}
                for pair in pairs
                if pair[1] == question
            },
        )
        for question in _questions(seen, pairs)
    ]


# --- answers, readings, further figures --------------------------------------------------------------


def _quoted(seen: Evidence) -> Iterator[Section]:
    """The first rows of every question that is answered in words, as each arm's first training did."""
    asked: defaultdict[str, list[Asked]] = defaultdict(list)
    for one in seen.answers.asked:
        if one.evaluation.kind == "generation":
            there = asked[one.evaluation.question]
            if one.arm.arm not in [o.arm.arm for o in there]:
                there.append(one)
    transcripts = [
        Transcript(
            f"{question}: {result.id}",
            result.prompt,
            {one.arm.arm: _said(seen, one, place) for one in together},
        )
        for question, together in asked.items()
        for place, result in enumerate(together[0].results[:_QUOTED])
    ]
    if transcripts:
        text = "Prompts as the model saw them, with each arm's first answer and its grades in brackets."
        yield Section("Sample prompts and answers", text, transcripts)


def _said(seen: Evidence, one: Asked, place: int) -> str:
    texts = one.results[place].texts
    pair = (one.arm.arm, one.evaluation.question)
    quantities = seen.judge.vocabulary.questions[pair[1]].quantities
    graders = [q for q in quantities if is_grade(q) and seen.runs(q, pair)]
    firsts = [mean([[seen.runs(q, pair)[0][place * len(texts)]]]) for q in graders]
    grades = [f"{q} {in_short(x)}" for q, x in zip(graders, firsts, strict=True)]
    return texts[0].strip() + (f" [{', '.join(grades)}]" if grades else "")


def _readings(judge: Judge) -> Iterator[Section]:
    for name in judge.bet.claims:
        found = judge.readings(name)
        if not found:
            continue
        n = max(len(reading.criteria) for reading in found)
        rows = [
            (
                reading.words,
                *(f"{c.value:.2g}" for c in reading.criteria),
                *[""] * (n - len(reading.criteria)),
                reading.outcome,
            )
            for reading in found
        ]
        title = "Other readings" + (f" of {name}" if len(judge.bet.claims) > 1 else "")
        columns = ("reading", *(f"criterion {i + 1}" for i in range(n)), "before checks")
        carried = [(words,) for words in judge.carried(name)]
        tables = [
            Table(columns, rows),
            *[Table(("means that few rows carry",), carried)] * bool(carried),
        ]
        yield Section(title, _agreement(Counter(r.outcome for r in found)), tables)


def _agreement(outcomes: Counter[Outcome]) -> str:
    text = (
        "What the criteria say if they are read otherwise. The verdict above is for the reading agreed "
        "before training; those below are before the validity checks. "
    )
    if len(outcomes) == 1:
        return f"{text}All {outcomes.total()} readings come out the same: {next(iter(outcomes))}."
    counts = ", ".join(f"{outcome} in {n}" for outcome, n in outcomes.most_common())
    return f"{text}**The {outcomes.total()} readings disagree**: {counts}."


def _also(judge: Judge) -> Iterator[Section]:
    further = [
        one if isinstance(one, Also) else Also(expression=one) for one in judge.bet.report.also
    ]
    if not further:
        return
    published = any(one.published is not None for one in further)
    rows = []
    for one in further:
        e = judge.estimate(one.expression)
        row = [" ".join(one.expression.split()), f"{e.value:.2g}", f"{e.low:.2g} to {e.high:.2g}"]
        theirs = "" if one.published is None else f"{one.published:g}"
        rows.append(row + [theirs] * published)
    columns = ["expression", "value", "interval"] + ["published"] * published
    yield Section("Further figures", "They decide nothing.", [Table(columns, rows, compact=True)])
