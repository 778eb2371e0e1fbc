"""The report's part on multiple choice: accuracies, by group and by size, and what needs no model."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backends.data import ScoringResult
from kaarel_bet.bet.arms import variants
from kaarel_bet.bet.report_evidence import Evidence, Pair, Run, mean, run_label
from kaarel_bet.bet.schema import Evaluation, NoLeak
from kaarel_bet.bet.splits import normal
from kaarel_bet.content import HeatMap, IntervalFigure, Section, Table
from kaarel_bet.estimates import Estimate, Floats
from kaarel_bet.experiments.interface import BASE, Row
from kaarel_bet.proportions import (
    brier,
    expected_calibration_error,
    mcnemar,
    percent,
    percent_interval,
    wilson,
)


@dataclass(frozen=True)
class Item:
    """A row as multiple choice; `group` is its value of the column that the report groups by."""

    id: str
    options: Sequence[str]
    answer: int
    group: str


@dataclass(frozen=True)
class _Main:
    """The main question: rows tested, rows that may be trained on, and all who were asked these rows."""

    seen: Evidence
    question: str
    train: Sequence[Item]
    test: Sequence[Item]
    pairs: Sequence[Pair]

    def title(self, pair: Pair) -> str:
        return pair[0] if pair[1] == self.question else ", ".join(pair)


def option_sections(seen: Evidence) -> Iterator[Section]:
    """Everything about answers that are right or wrong; nothing where there are none."""
    if seen.pairs("acc"):
        yield _accuracies(seen)
    main = _main_question(seen)
    if main is not None:
        yield _every_run(main)
        yield from _by_group(main)
        yield from _learning_curve(main)
        yield from _without_a_model(main)


def _main_question(seen: Evidence) -> _Main | None:
    """The first that the base is asked of one table, which has the column to group by, if one is named."""
    by, questions = seen.bet.report.by, seen.judge.vocabulary.questions
    for pair in seen.pairs("acc"):
        asked, rows = seen.evaluation(pair[1]), seen.rows_of(pair[1])
        special = asked.options is None or asked.examples or asked.rows == "trained_on"
        if pair[0] != BASE or not rows or special or (by is not None and by not in rows[0]):
            continue
        tested = {one.row for one in seen.runs("acc", pair)[0]}
        # Every row of the tables that arms train on, whether taken or not.
        tables = dict.fromkeys(one.rows for arm in variants(seen.bet) for one in arm.sets)
        trained = [row for name in tables for row in seen.answers.tables[name]]
        return _Main(
            seen,
            pair[1],
            _items([row for row in trained if rows[0].keys() <= row.keys()], asked, by),
            _items([row for row in rows if row["id"] in tested], asked, by),
            [p for p in seen.pairs("acc") if questions[p[1]].table == questions[pair[1]].table],
        )
    return None


def _items(rows: Sequence[Row], asked: Evaluation, by: str | None) -> list[Item]:
    options, answer = asked.options or "", asked.answer or ""
    return [
        Item(row["id"], row[options], int(row[answer]), "" if by is None else str(row[by]))
        for row in rows
        if row[options] and str(row[answer]).isdecimal()  # rows that are not asked may lack them
    ]


def _accuracies(seen: Evidence) -> Section:
    rows = []
    for pair in seen.pairs("acc"):
        acc, norm = (seen.estimate(pair, quantity) for quantity in ("acc", "acc_norm"))
        runs = str(len(seen.runs("acc", pair)))
        shares = (percent(acc.value), percent_interval(acc), percent(norm.value))
        rows.append((*seen.labels(pair), runs, *shares))
    columns = (*seen.headings, "runs", "acc %", "interval", "acc_norm %")
    return Section(
        "Accuracy",
        "acc and acc_norm as lm-evaluation-harness defines them. Runs are trainings, or draws of few-shot "
        "examples; with few of them, intervals know little of how much they differ.",
        [Table(columns, rows, compact=True)],
    )


# --- every run ---------------------------------------------------------------------------------------

_OF_A_RUN = ("run", "acc %", "Wilson interval", "stderr", "acc_norm %", "not settled", "prompts cut",
             "ECE", "Brier", "chose option 0 %")  # fmt: skip


def _every_run(main: _Main) -> Section:
    seen = main.seen
    rows = [
        (*seen.labels(pair), *_run_cells(seen, acc, norm))
        for pair in seen.pairs("acc")
        if seen.evaluation(pair[1]).options is not None
        for acc, norm in zip(seen.runs("acc", pair), seen.runs("acc_norm", pair), strict=True)
    ]
    shares = {main.title(pair): {"acc": seen.estimate(pair)} for pair in main.pairs}
    return Section(
        "Every run",
        "stderr is lm-evaluation-harness's, in points. ECE (ten bins) and Brier score (summed over "
        "options) are of the probabilities of the options given that one of them is said. Prompts that are "
        "longer than the model's context lose their beginning, examples first; they are counted.",
        [
            Table((*seen.headings, *_OF_A_RUN), rows),
            IntervalFigure("accuracy", "accuracy", shares),
            _comparisons(main),
        ],
    )


def _run_cells(seen: Evidence, acc: Run, norm: Run) -> tuple[str, ...]:
    lows, highs = np.array([one.low for one in acc]), np.array([one.high for one in acc])
    right = (lows + highs) / 2
    # Answers that are not settled widen the interval to what either way would give.
    low, high = (wilson(round(x.sum()), len(x), seen.judge.confidence) for x in (lows, highs))
    results = seen.results(acc)
    return (
        run_label(acc),
        percent(float(right.mean())),
        percent_interval(Estimate(right.mean(), low.low, high.high)),
        f"{100 * right.std(ddof=1) / math.sqrt(len(right)):.1f}" if len(right) > 1 else "",
        percent(mean([norm])),
        str(int((highs > lows).sum())),
        str(sum(result.is_cut for result in results)),
        *_calibration(seen, acc, [_probabilities(result) for result in results]),
    )


def _calibration(seen: Evidence, acc: Run, sure: Sequence[Floats]) -> tuple[str, str, str]:
    column = seen.evaluation(acc[0].question).answer or ""
    right = {row["id"]: int(row[column]) for row in seen.rows_of(acc[0].question)}
    if not right:
        return "", "", ""
    answers = [right[one.row] for one in acc]
    first = sum(given.argmax() == 0 for given in sure) / len(sure)
    error = expected_calibration_error(sure, answers)
    return f"{error:.3f}", f"{brier(sure, answers):.3f}", percent(first)


def _probabilities(result: ScoringResult) -> Floats:
    """The probability of every option, given that it is one of them: (options,)."""
    totals = [result.candidates[str(place)].total for place in range(len(result.candidates))]
    most = max(total.high for total in totals)
    if most == -math.inf:
        return np.full(len(totals), 1 / len(totals))
    middle = np.exp([t.low - most for t in totals]) + np.exp([t.high - most for t in totals])
    return middle / middle.sum()


def _comparisons(main: _Main) -> Table:
    """Everybody against the base on the same rows: the difference, and McNemar's test run by run."""
    seen, zero_shot = main.seen, (BASE, main.question)
    zero = {(one.row, one.part): one for one in seen.runs("acc", zero_shot)[0]}
    rows = []
    for arm, question in (pair for pair in main.pairs if pair != zero_shot):
        gain = f"mean(acc({question}, {arm})) - mean(acc({main.question}, {BASE}))"
        found = seen.judge.estimate(gain)
        points = f"{100 * found.value:+.1f}", f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        tests = []
        for run in seen.runs("acc", (arm, question)):
            both = [(one, zero[one.row, one.part]) for one in run]
            # Answers that are not settled are nobody's.
            only_one = sum(a.low == 1 and b.high == 0 for a, b in both)
            only_base = sum(b.low == 1 and a.high == 0 for a, b in both)
            tests.append(f"{only_one}, {only_base}, {mcnemar(only_one, only_base):.2g}")
        rows.append((f"{main.title((arm, question))} - {BASE}", *points, "; ".join(tests)))
    test = "McNemar, run by run: only first, only second, p"
    return Table(("difference", "points", "interval", test), rows)


# --- by group, by size -------------------------------------------------------------------------------


def _by_group(main: _Main) -> Iterator[Section]:
    """Accuracy in groups of the column that the bet names, and every arm on every group."""
    by, seen = main.seen.bet.report.by, main.seen
    if by is None:
        return
    values = {item.group for item in (*main.train, *main.test)}
    single = {arm.name for arm in variants(seen.bet) if any(one.each for one in arm.sets)}
    groups: dict[str, Evidence] = {}
    shares: dict[str, dict[str, Estimate]] = {}
    legend: list[tuple[str, ...]] = []
    # Those that take together what is rare, as "(other wordings)", stand in brackets.
    for value in sorted(values, key=lambda value: (value.startswith("("), value)):
        name = f"{by[0].upper()}{len(legend) + 1}"
        items = [item for item in main.test if item.group == value]
        legend.append((name, value, str(len(items)), _share_of_option_0(items)))
        if items:
            some = groups[name] = seen.among({item.id for item in items})
            shares[name] = {
                main.title(p): some.estimate(p) for p in main.pairs if p[0] not in single
            }
    columns = ("", by, "rows asked", "option 0 right %")
    figure = IntervalFigure(f"by-{by.replace('_', '-')}", "accuracy", shares)
    yield Section(f"Accuracy by {by}", "", [figure, Table(columns, legend)])
    yield _transfer(main, groups)


def _share_of_option_0(items: Sequence[Item]) -> str:
    return percent(sum(item.answer == 0 for item in items) / len(items)) if items else ""


def _transfer(main: _Main, groups: dict[str, Evidence]) -> Section:
    """Trained on one thing, tested on all."""
    seen, same = main.seen, {question for _, question in main.pairs}
    others = [
        question
        for question in dict.fromkeys(question for _, question in seen.pairs("acc"))
        if question not in same and seen.evaluation(question).rows != "trained_on"
    ]
    arms = [arm for arm, question in main.pairs if question == main.question]
    values = [
        [
            *(mean(some.runs("acc", (arm, main.question))) for some in groups.values()),
            *(mean(seen.runs("acc", (arm, question))) for question in others),
        ]
        for arm in arms
    ]
    return Section(
        "Transfer and forgetting",
        f"Accuracy in percent of each arm on each group of {main.question}'s rows, listed above, and on "
        "all else that it was asked. What is below the base's row was forgotten.",
        [HeatMap("transfer", "arm", "asked", arms, [*groups, *others], values)],
    )


def _learning_curve(main: _Main) -> Iterator[Section]:
    """Arms that differ in how many rows they take, and few-shot prompting at the number of its examples."""
    seen = main.seen
    groups: defaultdict[int, dict[str, Estimate]] = defaultdict(dict)
    for entry, arm in seen.bet.arms.items():
        takes = [getattr(one, "take", None) for one in arm.train]
        for n in (n for take in takes if isinstance(take, tuple) for n in take):
            pair = (f"{entry}_{n}", main.question)
            if pair in main.pairs:
                groups[n][entry] = seen.estimate(pair)
                groups[0][entry] = seen.estimate((BASE, main.question))
    if not groups:
        return
    for pair in main.pairs:
        examples = seen.evaluation(pair[1]).examples
        if pair[0] == BASE and examples is not None:
            groups[examples.n][pair[1]] = seen.estimate(pair)
    in_order = {str(n): groups[n] for n in sorted(groups)}
    yield Section(
        "Accuracy against the number of training rows",
        "At 0 is the base model; few-shot prompting stands at the number of its examples.",
        [IntervalFigure("learning-curve", "accuracy", in_order, "rows", connected=True)],
    )


# --- without a model ---------------------------------------------------------------------------------

_Key = Callable[[Item, int], object]
"""What of an item and one of its options (by its place) a rule looks at."""

BASELINES: dict[str, _Key] = {
    "most_frequent_place": lambda item, place: place,
    "most_frequent_answer": lambda item, place: item.options[place],
    "most_frequent_answer_by_group": lambda item, place: (item.group, item.options[place]),
}


def baseline_answers(key: _Key, train: Sequence[Item], test: Sequence[Item]) -> list[bool]:
    """Whether each item is answered right by taking the option whose key is right most often.

    Shares are smoothed (Laplace), so that what was never seen counts as right half of the time; of
    equals the first option is taken.
    """
    seen: Counter[object] = Counter()
    right: Counter[object] = Counter()
    for item in train:
        for place in range(len(item.options)):
            seen[key(item, place)] += 1
            right[key(item, place)] += place == item.answer
    answers = []
    for item in test:
        keys = [key(item, place) for place in range(len(item.options))]
        shares = [(right[k] + 1) / (seen[k] + 2) for k in keys]
        answers.append(shares.index(max(shares)) == item.answer)
    return answers


def _without_a_model(main: _Main) -> Iterator[Section]:
    report, checks = main.seen.bet.report, main.seen.bet.checks.values()
    tables = [_leakage(main.seen, check) for check in checks if isinstance(check, NoLeak)]
    tables += [_baselines(main)] if report.baselines else []
    if tables:
        text = (
            "What tested rows have in common with rows that may be trained on, and how far one gets with "
            "no model at all, by what training rows show on their surface: the place (or the option's "
            "text, or that within a group) that is right most often."
        )
        yield Section("Leakage audit and shortcuts", text, tables)


def _baselines(main: _Main) -> Table:
    rows = []
    for name in main.seen.bet.report.baselines:
        right = baseline_answers(BASELINES[name], main.train, main.test)
        share = wilson(sum(right), len(right), main.seen.judge.confidence)
        n = str(len(main.train))
        rows.append((name.replace("_", " "), n, percent(share.value), percent_interval(share)))
    rows.append(("always option 0", "0", _share_of_option_0(main.test), ""))
    return Table(("without a model", "training rows seen", "acc %", "Wilson interval"), rows)


def _leakage(seen: Evidence, check: NoLeak) -> Table:
    """What rows share, exactly or modulo numbers, but for case and white space."""
    train, test = (
        [normal(row[check.on]) for row in seen.answers.tables[name]] for name in check.between
    )
    alike: dict[str, Callable[[str], object]] = {
        f"the {check.on}": lambda text: text,
        f"the {check.on} modulo numbers": lambda text: re.sub(r"\d+", "#", text),
        f"all numbers of the {check.on}": lambda text: tuple(sorted(re.findall(r"\d+", text))),
    }
    rows = []
    for what, of in alike.items():
        known = {of(text) for text in train}
        n = sum(bool(of(text)) and of(text) in known for text in test)
        rows.append((what, str(n), f"{n / len(test):.0%}"))
    one, other = check.between
    return Table((f"shared with a row of {one}", f"rows of {other}", "share"), rows)
