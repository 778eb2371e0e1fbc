"""The ARC experiment: from settings to data, from answers to observations and the report."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from typing_extensions import override

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observation, Vocabulary
from kaarel_bet.bet.report_evidence import Run, mean
from kaarel_bet.content import GridFigure, GridRow, IntervalFigure, Section, Table
from kaarel_bet.estimates import Estimate
from kaarel_bet.experiments.arc import metrics
from kaarel_bet.experiments.arc.arms import (
    AUGMENTED,
    COUNTING,
    IN_DEPTH,
    Asker,
    Model,
    TrainingSets,
    arms_asked,
    make_arms,
    models,
)
from kaarel_bet.experiments.arc.grids import (
    SETS,
    ArcItem,
    SetName,
    Unreadable,
    arc_items,
    cells_without_token,
)
from kaarel_bet.experiments.arc.metrics import UNSEEN, VIEWS
from kaarel_bet.experiments.arc.prompts import Lengths, draw_questions
from kaarel_bet.experiments.arc.replies import Replies, Reply
from kaarel_bet.experiments.arc.sets import draw_sets
from kaarel_bet.experiments.arc.settings import ArcBet
from kaarel_bet.experiments.interface import (
    BASE,
    Answers,
    Design,
    Evaluation,
    Experiment,
    Tokenize,
)
from kaarel_bet.proportions import percent, percent_interval

_SPARE_TOKENS = 8
"""For the end of an answer and for what a model may say around it."""


class Arc(Experiment):
    """Fine-tunes on grids and asks for grids."""

    def __init__(self, bet: ArcBet, seed: int) -> None:
        self._bet = bet
        self._seed = seed

    @property
    @override
    def bet(self) -> ArcBet:
        return self._bet

    @override
    def vocabulary(self) -> Vocabulary:
        return metrics.vocabulary(self._bet)

    @override
    def design(self, tokenize: Tokenize) -> Design:
        bet = self._bet
        lengths = Lengths(tokenize, bet.encoding, bet.max_tokens)
        sets, notes = draw_sets(bet.sets, lengths, self._seed)
        made = TrainingSets(lengths, bet.augmentation, self._seed)
        learned, asked = draw_questions(bet.counting, lengths, self._seed)
        arms = list(make_arms(made, sets, learned, bet))
        items: dict[SetName, list[ArcItem]] = {
            name: arc_items(tasks, name) for name, tasks in sets.items()
        }
        # As long as the longest grid of any set, which gives no task away.
        longest = lengths.longest(itertools.chain.from_iterable(sets.values()))
        asker = Asker(bet, self._seed, _SPARE_TOKENS + longest)
        counting, questions = asker.counting(asked, arms)
        notes["cells of sample grids that are not one token"] = cells_without_token(
            tokenize, bet.encoding
        )
        return Design(
            arms=arms,
            evaluations=[*asker.of_tasks(items, arms), counting],
            notes=notes | made.notes,
            tables={
                "tasks": [item.model_dump(mode="json") for of in items.values() for item in of],
                "counting": questions,
            },
        )

    @override
    def follow_ups(self, answers: Answers) -> Sequence[Evaluation]:
        """The candidates of every model asked in depth, to be scored in every view (product of experts)."""
        return list(self._replies(answers).experts())

    @override
    def observe(self, answers: Answers) -> Iterable[Observation]:
        return metrics.observe(self._replies(answers))

    @override
    def sections(self, answers: Answers, judge: Judge) -> Sequence[Section]:
        replies = self._replies(answers)
        by_arm, in_depth = _by_arm(replies, judge), _in_depth(replies, judge)
        return [by_arm, in_depth, *_pictures(replies), _details(replies, judge)]

    def _replies(self, answers: Answers) -> Replies:
        return Replies(answers, self._bet, self._seed)


# --- the report -------------------------------------------------------------------------------------


def _mean(judge: Judge, quantity: str, question: str, arm: str) -> Estimate:
    return judge.estimate(f"mean({quantity}({question}, {arm}))")


def _with_interval(share: Estimate) -> str:
    return f"{percent(share.value)} ({percent_interval(share)})"


def _by_arm(replies: Replies, judge: Judge) -> Section:
    """A line for every set and arm: what matters most, and all that is observed with intervals."""
    bet = replies.bet
    by = bet.prediction
    at_k = f"pass@{by.k}"
    quantities = {
        "greedy %": "greedy",
        "pass@1 %": "pass_at_1",
        f"{at_k} %": "pass_at_k",
        "size %": "size",
        "cells %": "cells",
        "no grid %": "unanswered",
    }
    shown = ("greedy %", f"{at_k} %", "cells %")
    short, long, trained = [], [], []
    figure: dict[str, dict[str, Estimate]] = {part: {} for part in SETS}
    for part in SETS:
        for arm in arms_asked(part, bet):
            shares = {title: _mean(judge, q, part, arm) for title, q in quantities.items()}
            figure[part][arm] = shares[f"{at_k} %"]
            loss = _mean(judge, "loss", part, arm)
            value = f"{loss.value:.3f}"
            short.append((part, arm, *(percent(shares[title].value) for title in shown), value))
            last = f"{value} ({loss.low:.3f} to {loss.high:.3f})"
            long.append((part, arm, *map(_with_interval, shares.values()), last))
            trained += _each_training(judge, part, arm, [*quantities.values(), "loss"])
    counts = ", ".join(f"{len({i.task.id for i in replies.of(part)})} {part}" for part in SETS)
    several = _several(bet)
    return Section(
        f"Answers to {counts} tasks",
        f"Shares are means over tasks{several and ' and trainings'}, of a task's test inputs first. pass@k "
        f"is that one of k answers at temperature {by.temperature:g} is right, estimated from "
        f"{by.n_samples} (Chen et al. 2021); greedy, size, cells (0 where the size is wrong) and no grid "
        "are of the one likeliest answer. Loss is of the right answer, in nats a token. "
        + (several or _ONE_TRAINING)
        + _allowed(replies, judge),
        [
            Table(("set", "arm", *shown, "loss"), short, compact=True),
            IntervalFigure("pass-at-k", at_k, figure),
            Table(("set", "arm", *quantities, "loss"), long),
            *_of_trainings(("set", "arm"), (*quantities, "loss"), trained),
        ],
    )


_ONE_TRAINING = (
    "Each arm was fine-tuned once: intervals are over tasks, and know nothing of how another training "
    "would have come out."
)


def _several(bet: ArcBet) -> str:
    """What is to be said of several trainings; nothing where there is one."""
    n = bet.replicate.training
    if n == 1:
        return ""
    return f"Each arm was fine-tuned {n} times: intervals are over tasks and trainings."


def _each_training(
    judge: Judge, question: str, arm: str, quantities: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """The cells of each training of an arm: question, arm, number, and the means over tasks."""
    if arm != BASE:
        runs = [judge.observations.runs(quantity, question, arm) for quantity in quantities]
        for number, run in enumerate(zip(*runs, strict=True), start=1):
            yield (question, arm, str(number), *map(_mean_of_run, run))


def _mean_of_run(run: Run) -> str:
    if run[0].quantity == "loss":
        return f"{mean([run]):.3f}"
    return percent(mean([run])) if _settled(run) else _NOT_SETTLED


def _settled(ranks: Run) -> bool:
    """Whether it is known which candidates are likeliest."""
    return all(one.low == one.high for one in ranks)


_NOT_SETTLED = "not settled"


def _of_trainings(
    begins: Sequence[str], quantities: Iterable[str], rows: Sequence[tuple[str, ...]]
) -> list[Table]:
    """The table of all trainings, where any arm has several."""
    several = any(int(row[len(begins)]) > 1 for row in rows)
    return [Table((*begins, "training", *quantities), rows)] if several else []


def _allowed(replies: Replies, judge: Judge) -> str:
    """What `sets.leakage: allow` let in."""
    text = ""
    for part in UNSEEN:
        n = sum(int(one.low) for one in judge.observations.of("shared", f"tasks.{part}", ""))
        if n and replies.bet.sets.leakage == "allow":
            text += (
                f" {n} tasks of {part} share a pair, modulo augmentation, with a task of train, "
            )
            text += "which the settings allow."
    return text


def _in_depth(replies: Replies, judge: Judge) -> Section:
    """The arms that were asked under augmentation."""
    by = replies.bet.prediction
    k = by.k
    quantities = {
        f"pass@{k} %": ("pass_at_k", "test"),
        f"vote@{k} %": ("vote", VIEWS),
        f"experts@{k} %": ("experts", VIEWS),
        "right in any view %": ("any_view", VIEWS),
        "among candidates %": ("any_candidate", VIEWS),
    }
    rows, trained = [], []
    for arm in arms_asked("test", replies.bet):
        if arm in IN_DEPTH:
            cells = [_with_interval(_mean(judge, *of, arm)) for of in quantities.values()]
            if not _settled(judge.observations.of("experts", VIEWS, arm)):
                cells[2] = _NOT_SETTLED
            rows.append((arm, *cells))
            of_views = [quantity for quantity, question in quantities.values() if question == VIEWS]
            trained += [row[1:] for row in _each_training(judge, VIEWS, arm, of_views)]
    return Section(
        "The test set under augmentation",
        f"Each task is shown in {by.augmentations} views (turned, recoloured, reordered) and the "
        f"answers are turned back. vote@{k}: the right grid is among the {k} that most views agree on. "
        f"experts@{k}: it is among the {k} candidates whose log-probabilities, summed over the views, are "
        "largest (product of experts). The last two columns are ceilings, which no choice of answers "
        "could exceed.",
        [
            Table(("arm", *quantities), rows, compact=True),
            *_of_trainings(("arm",), [*quantities][1:], trained),
        ],
    )


_PICTURED: Model = (AUGMENTED, 1)


def _pictures(replies: Replies) -> list[Section]:
    found = []
    for title, solved in (("Solved tasks", True), ("Unsolved tasks", False)):
        items = [
            item
            for part in reversed(SETS)
            for item in replies.of(part)
            if (replies.greedy(_PICTURED, item) == item.expected) == solved
        ][: replies.bet.n_pictured]
        which = f"{AUGMENTED}{_several(replies.bet) and ' in its first training'}"
        words = f"By the greedy answer of {which}; tasks that it was not trained on come first."
        figures = [_picture(replies, item) for item in items]
        found.append(Section(title, words if items else "None.", figures))
    return found


def _picture(replies: Replies, item: ArcItem) -> GridFigure:
    """The examples, and under them the test input with the right answer and the greedy one."""
    task, title = item.task, f"{item.part}, {item.task.id}"
    rows = [
        GridRow(f"{title}: example {number}", {"input": pair.input, "output": pair.output})
        for number, pair in enumerate(task.train, start=1)
    ]
    reply = replies.greedy(_PICTURED, item)
    answered = None if isinstance(reply, Unreadable) else reply
    asked = {"input": task.test[item.index].input, "expected": item.expected, "predicted": answered}
    name = f"{AUGMENTED}-{item.part}-{task.id}-{item.index}"
    return GridFigure(name, [*rows, GridRow(f"{title}: test", asked)])


def _details(replies: Replies, judge: Judge) -> Section:
    """Questions that need counting, before and after learning to count; why answers were no grids."""
    n = str(len(replies.answers.tables["counting"]))
    counted = [
        (arm, percent(_mean(judge, "counted", "counting", arm).value), n)
        for arm in (BASE, COUNTING)
    ]
    trained = [row[1:] for row in _each_training(judge, "counting", COUNTING, ["counted"])]
    ways: dict[str, Callable[[Model, ArcItem], Sequence[Reply]]] = {
        "greedy": lambda model, item: [replies.greedy(model, item)],
        "sampled": replies.samples,
        "in views": replies.augmented,
    }
    rows = []
    for part, (title, replies_to) in itertools.product(SETS, ways.items()):
        for arm in arms_asked(part, replies.bet):
            if title == "in views" and not (part == "test" and arm in IN_DEPTH):
                continue
            asked = itertools.product(models([arm], replies.bet), replies.of(part))
            found = [reply for one in asked for reply in replies_to(*one)]
            reasons = Counter(str(r) for r in found if isinstance(r, Unreadable))
            if reasons:
                why = "; ".join(f"{n} {reason}" for reason, n in reasons.most_common())
                rows.append((part, arm, title, str(reasons.total()), str(len(found)), why))
    return Section(
        "Counting, and answers that were no grids",
        "",
        [
            Table(("arm", "right to the letter %", "questions"), counted),
            *_of_trainings(("arm",), ("right to the letter %",), trained),
            Table(("set", "arm", "answers", "no grid", "of", "why"), rows),
        ],
    )
