"""The tables of the report."""

import math

from kaarel_bet.content import Table
from kaarel_bet.estimates import Estimate
from kaarel_bet.experiments.inverse_scaling.calibration import brier, expected_calibration_error
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.gains import Gains
from kaarel_bet.experiments.inverse_scaling.leakage import audit
from kaarel_bet.experiments.inverse_scaling.outcomes import chosen, probabilities
from kaarel_bet.experiments.inverse_scaling.plan import Condition, Kind, Run
from kaarel_bet.experiments.inverse_scaling.shortcuts import SHORTCUTS, shortcut_answers
from kaarel_bet.proportions import mcnemar, percent, percent_interval, wilson


def accuracies(known: Evidence) -> Table:
    """Every condition, its runs taken together; beside them what somebody else found, if given.

    Theirs stands beside the largest training set alone: it is of one size.
    """
    reference = known.settings.reference
    rows = []
    for condition in known.conditions:
        acc, norm = (known.accuracy(condition.runs, metric) for metric in ("acc", "acc_norm"))
        row = [condition.title, str(len(condition.runs)), *_with_interval(acc), percent(norm.value)]
        if reference is not None:
            largest = condition == known.condition(condition.kind)
            published = getattr(reference, condition.kind, None) if largest else None
            row.append("" if published is None else f"{published:.2f}")
        rows.append(row)
    columns = ["condition", "runs", "acc %", "interval", "acc_norm %"]
    return Table(columns + ["original"] * (reference is not None), rows, compact=True)


def gain_table(found: Gains) -> Table:
    """The gains, and the lead of the first."""
    rows = [
        (name, f"{gain.value:.2f}", f"{gain.low:.2f} to {gain.high:.2f}")
        for name, gain in (
            ("fine-tuning", found.fine_tuned),
            ("few-shot", found.few_shot),
            ("lead of fine-tuning", found.lead),
        )
    ]
    return Table(("gain of", "share of what was left", "interval"), rows, compact=True)


def every_run(known: Evidence) -> Table:
    """One line a seed or draw."""
    rows = [
        _run_row(known, condition, run) for condition in known.conditions for run in condition.runs
    ]
    columns = (
        "condition",
        "arm",
        "asked",
        "acc %",
        "Wilson interval",
        "stderr",
        "acc_norm %",
        "not settled",
        "prompts cut",
        "ECE",
        "Brier",
        "chose option 0 %",
    )
    return Table(columns, rows)


def _run_row(known: Evidence, condition: Condition, run: Run) -> list[str]:
    acc, norm = (known.correct([run], metric) for metric in ("acc", "acc_norm"))
    right = acc.middle[0]
    answered = known.answered(run)
    confidence = known.settings.claim.confidence
    interval = wilson(float(right.sum()), len(right), confidence)
    # Answers that are not settled widen it to what either way would give.
    low = wilson(float(acc.low.sum()), len(right), confidence).low
    high = wilson(float(acc.high.sum()), len(right), confidence).high
    sure = [probabilities(result, item) for result, item in answered]
    answers = [item.answer for _, item in answered]
    first = [chosen(result, item, known.settings.claim.metric) == 0 for result, item in answered]
    return [
        condition.title,
        run.arm,
        run.evaluation,
        *_with_interval(Estimate(interval.value, low, high)),
        f"{100 * right.std(ddof=1) / math.sqrt(len(right)):.1f}",
        percent(norm.middle.mean()),
        str(int((acc.high > acc.low).sum())),
        str(sum(result.is_cut for result, _ in answered)),
        f"{expected_calibration_error(sure, answers):.3f}",
        f"{brier(sure, answers):.3f}",
        percent(sum(first) / len(first)),
    ]


_COMPARED: tuple[tuple[Kind, Kind], ...] = (
    ("few_shot", "zero_shot"),
    ("fine_tuned", "zero_shot"),
    ("fine_tuned", "few_shot"),
    ("placebo", "zero_shot"),
    ("fine_tuned", "placebo"),
)


def comparisons(known: Evidence) -> Table:
    """Conditions on the same items: the difference, and McNemar's test run by run."""
    metric = known.settings.claim.metric
    present = {condition.kind for condition in known.conditions}
    rows = []
    for one, other in _COMPARED:
        if not {one, other} <= present:
            continue
        left, right = known.condition(one), known.condition(other)
        samples = known.correct(left.runs, metric), known.correct(right.runs, metric)
        difference = known.estimate(lambda a, b: a - b, *samples)
        rows.append(
            (
                f"{left.title} - {right.title}",
                f"{100 * difference.value:+.1f}",
                f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
                "; ".join(_mcnemar(known, a, b) for a, b in _pairs(left, right)),
            )
        )
    columns = (
        "difference",
        "points",
        "interval",
        "McNemar, run by run: only first, only second, p",
    )
    return Table(columns, rows)


def _pairs(left: Condition, right: Condition) -> list[tuple[Run, Run]]:
    """Every run of the larger one with one of the other's, taken in turn."""
    n = max(len(left.runs), len(right.runs))
    return [(left.runs[i % len(left.runs)], right.runs[i % len(right.runs)]) for i in range(n)]


def _mcnemar(known: Evidence, one: Run, other: Run) -> str:
    """Answers that are not settled are nobody's."""
    metric = known.settings.claim.metric
    a, b = known.correct([one], metric), known.correct([other], metric)
    only_one = int(((a.low == 1) & (b.high == 0)).sum())
    only_other = int(((b.low == 1) & (a.high == 0)).sum())
    return f"{only_one}, {only_other}, {mcnemar(only_one, only_other):.2g}"


def shortcut_table(known: Evidence) -> Table:
    """The baselines without a model, which see every row that may be trained on."""
    train, test = known.part("train"), known.part("test")
    rows = []
    for name, key in SHORTCUTS.items():
        right = shortcut_answers(key, train, test)
        share = wilson(sum(right), len(right), known.settings.claim.confidence)
        rows.append((name, str(len(train)), *_with_interval(share)))
    zero = sum(item.answer == 0 for item in test) / len(test)
    rows.append(("always option 0", "0", percent(zero), ""))
    return Table(("without a model", "training rows seen", "acc %", "Wilson interval"), rows)


def leakage_table(known: Evidence) -> Table:
    """What test rows share with training rows."""
    leak = audit(known.part("train"), known.part("test"))
    rows = [
        (what, str(n), f"{n / leak.n_test:.0%}")
        for what, n in (
            ("the prompt", leak.prompt),
            ("the prompt modulo numbers", leak.wording),
            ("all of the prompt's numbers", leak.numbers),
        )
    ]
    return Table(("shared with a training row", "test rows", "share"), rows)


def _with_interval(estimate: Estimate) -> tuple[str, str]:
    return percent(estimate.value), percent_interval(estimate)
