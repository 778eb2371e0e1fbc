"""The tables of the report."""

from collections import Counter

from kaarel_bet.content import Table
from kaarel_bet.estimates import Estimate
from kaarel_bet.experiments.arc.encodings import Unreadable
from kaarel_bet.experiments.arc.measures import Measures
from kaarel_bet.experiments.arc.plan import SETS, SetName


def by_arm(measured: Measures) -> Table:
    """One line for every arm and set."""
    k = measured.known.settings.prediction.k
    rows = []
    for part in SETS:
        for name in measured.known.systems("greedy", part):
            measures = (
                measured.greedy,
                measured.pass_at(1),
                measured.pass_at_k,
                measured.size,
                measured.cells,
                measured.unanswered,
            )
            shares = [measured.share(name, [part], measure) for measure in measures]
            values = [_percent(share.value) for share in shares]
            values[2] += f" ({_interval(shares[2])})"
            loss = measured.loss(name, [part])
            rows.append(
                (part, name, *values, f"{loss.value:.3f} ({loss.low:.3f} to {loss.high:.3f})")
            )
    columns = (
        "set",
        "arm",
        "greedy %",
        "pass@1 %",
        f"pass@{k} %",
        "size %",
        "cells %",
        "no grid %",
        "loss (nats a token)",
    )
    return Table(columns, rows, compact=True)


def in_depth(measured: Measures, part: SetName) -> Table:
    """What augmentation makes of the answers: votes, product of experts, and their ceilings."""
    k = measured.known.settings.prediction.k
    rows = []
    for name in measured.known.systems("augmented", part):
        measures = (
            measured.pass_at_k,
            measured.voted,
            measured.ranked,
            measured.any_view,
            measured.any_candidate,
        )
        shares = [measured.share(name, [part], measure) for measure in measures]
        rows.append((name, *(f"{_percent(s.value)} ({_interval(s)})" for s in shares)))
    columns = (
        "arm",
        f"pass@{k} %",
        f"vote@{k} %",
        f"experts@{k} %",
        "right in any view %",
        "among candidates %",
    )
    return Table(columns, rows, compact=True)


def unreadable(measured: Measures) -> Table:
    """Why greedy answers were no grids."""
    known = measured.known
    rows = []
    for part in SETS:
        for name in known.systems("greedy", part):
            replies = [known.greedy(name, item) for item in known.of(part)]
            reasons = Counter(str(r) for r in replies if isinstance(r, Unreadable))
            if reasons:
                what = "; ".join(f"{n} {reason}" for reason, n in reasons.most_common())
                rows.append((part, name, str(reasons.total()), str(len(replies)), what))
    return Table(("set", "arm", "no grid", "of", "why"), rows)


def counting(measured: Measures, arms: tuple[str, ...]) -> Table:
    """Questions that need counting, before and after learning to count."""
    known = measured.known
    rows = [(arm, _percent(known.counted(arm)), str(len(known.counting))) for arm in arms]
    return Table(("arm", "right to the letter %", "questions"), rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(share: Estimate) -> str:
    return f"{_percent(share.low)} to {_percent(share.high)}"
