"""The tables of the report."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from kaarel_bet.content import Table
from kaarel_bet.experiments.arc.encodings import Unreadable
from kaarel_bet.experiments.arc.evidence import Reply
from kaarel_bet.experiments.arc.items import ArcItem
from kaarel_bet.experiments.arc.measures import Measure, Measures
from kaarel_bet.experiments.arc.plan import SETS, Kind, SetName
from kaarel_bet.proportions import percent, percent_interval


def by_arm(measured: Measures) -> Table:
    """One line for every arm and set, of what matters most."""
    k = measured.known.settings.prediction.k
    shown = ("greedy %", f"pass@{k} %", "cells %")
    rows = []
    for part, name in _asked(measured):
        measures = _measures(measured)
        shares = [measured.share(name, [part], measures[column]) for column in shown]
        loss = measured.loss(name, [part])
        rows.append((part, name, *(percent(s.value) for s in shares), f"{loss.value:.3f}"))
    return Table(("set", "arm", *shown, "loss"), rows, compact=True)


def by_arm_with_intervals(measured: Measures) -> Table:
    """The same of all that is measured, with intervals."""
    rows = []
    for part, name in _asked(measured):
        shares = [measured.share(name, [part], measure) for measure in _measures(measured).values()]
        loss = measured.loss(name, [part])
        cells = (f"{percent(share.value)} ({percent_interval(share)})" for share in shares)
        last = f"{loss.value:.3f} ({loss.low:.3f} to {loss.high:.3f})"
        rows.append((part, name, *cells, last))
    return Table(("set", "arm", *_measures(measured), "loss"), rows)


def _asked(measured: Measures) -> list[tuple[SetName, str]]:
    return [(part, name) for part in SETS for name in measured.known.systems("loss", part)]


def _measures(measured: Measures) -> dict[str, Measure]:
    return {
        "greedy %": measured.greedy,
        "pass@1 %": measured.pass_at(1),
        f"pass@{measured.known.settings.prediction.k} %": measured.pass_at_k,
        "size %": measured.size,
        "cells %": measured.cells,
        "no grid %": measured.unanswered,
    }


def in_depth(measured: Measures, part: SetName) -> Table:
    """What augmentation makes of the answers: votes, product of experts, and their ceilings."""
    known = measured.known
    k = known.settings.prediction.k
    measures = {
        f"pass@{k} %": measured.pass_at_k,
        f"vote@{k} %": measured.voted,
        f"experts@{k} %": measured.ranked,
        "right in any view %": measured.any_view,
        "among candidates %": measured.any_candidate,
    }
    rows = []
    for name in known.systems("augmented", part):
        cells = []
        for measure in measures.values():
            share = measured.share(name, [part], measure)
            cells.append(f"{percent(share.value)} ({percent_interval(share)})")
        if not known.ranks(name, known.of(part)):
            cells[2] = "not settled"
        rows.append((name, *cells))
    return Table(("arm", *measures), rows, compact=True)


def unreadable(measured: Measures) -> Table:
    """Why answers were no grids."""
    known = measured.known
    ways: dict[Kind, Callable[[str, ArcItem], Sequence[Reply]]] = {
        "greedy": lambda name, item: [known.greedy(name, item)],
        "samples": known.samples,
        "augmented": known.augmented,
    }
    titles = {"greedy": "greedy", "samples": "sampled", "augmented": "in views"}
    rows = []
    for part, (kind, replies_to) in itertools.product(SETS, ways.items()):
        for name in known.systems(kind, part):
            replies = [reply for item in known.of(part) for reply in replies_to(name, item)]
            reasons = Counter(str(r) for r in replies if isinstance(r, Unreadable))
            if reasons:
                why = "; ".join(f"{n} {reason}" for reason, n in reasons.most_common())
                counts = (str(reasons.total()), str(len(replies)))
                rows.append((part, name, titles[kind], *counts, why))
    return Table(("set", "arm", "answers", "no grid", "of", "why"), rows)


def counting(measured: Measures, arms: tuple[str, ...]) -> Table:
    """Questions that need counting, before and after learning to count."""
    known = measured.known
    rows = [(arm, percent(known.counted(arm)), str(len(known.counting))) for arm in arms]
    return Table(("arm", "right to the letter %", "questions"), rows)
