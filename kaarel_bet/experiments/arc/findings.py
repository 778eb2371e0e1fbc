"""What the report shows: the five verdicts, answers by arm, and tasks as pictures."""

from kaarel_bet.content import IntervalFigure, Section
from kaarel_bet.experiments.arc import plan, tables
from kaarel_bet.experiments.arc.evidence import Evidence
from kaarel_bet.experiments.arc.measures import Measures
from kaarel_bet.experiments.arc.pictures import chosen, picture
from kaarel_bet.experiments.arc.resolution import claims
from kaarel_bet.experiments.interface import Findings

_QUESTION = (
    "Fine-tuned on ARC tasks: can they be learned, does one set help the other and a held-out test, does "
    "starting from a model that learned to count help, and does augmentation?"
)


def find(known: Evidence) -> Findings:
    """The verdicts and the report's content."""
    measured = Measures(known)
    sections = [_by_arm(measured), _in_depth(measured), *_pictures(known), _details(measured)]
    return Findings(_QUESTION, [claim.verdict() for claim in claims(measured)], sections)


def _by_arm(measured: Measures) -> Section:
    known = measured.known
    prediction = known.settings.prediction
    figure = IntervalFigure(
        "pass-at-k",
        f"pass@{prediction.k}",
        {
            part: {
                name: measured.share(name, [part], measured.pass_at_k)
                for name in known.systems("samples", part)
            }
            for part in plan.SETS
        },
    )
    counts = ", ".join(
        f"{len({item.task.id for item in known.of(part)})} {part}" for part in plan.SETS
    )
    return Section(
        f"Answers to {counts} tasks",
        "Shares are means over tasks, of a task's test inputs first. pass@k is that one of k answers at "
        f"temperature {prediction.temperature:g} is right, estimated from {prediction.n_samples} "
        "(Chen et al. 2021); greedy, size, cells (0 where the size is wrong) and no grid are of the one "
        "likeliest answer. Loss is of the right answer, in nats a token. Each arm was fine-tuned once: "
        "intervals are over tasks, and know nothing of how another training would have come out.",
        [tables.by_arm(measured), figure, tables.by_arm_with_intervals(measured)],
    )


def _in_depth(measured: Measures) -> Section:
    prediction = measured.known.settings.prediction
    k = prediction.k
    return Section(
        "The test set under augmentation",
        f"Each task is shown in {prediction.augmentations} views (turned, recoloured, reordered) and the "
        f"answers are turned back. vote@{k}: the right grid is among the {k} that most views agree on. "
        f"experts@{k}: it is among the {k} candidates whose log-probabilities, summed over the views, are "
        "largest (product of experts). The last two columns are ceilings, which no choice of answers "
        "could exceed.",
        [tables.in_depth(measured, "test")],
    )


def _pictures(known: Evidence) -> list[Section]:
    sections = []
    for title, solved in (("Solved tasks", True), ("Unsolved tasks", False)):
        items = chosen(known, plan.AUGMENTED, solved=solved)
        words = f"By the greedy answer of {plan.AUGMENTED}; tasks that it was not trained on come first."
        figures = [picture(known, plan.AUGMENTED, item) for item in items]
        sections.append(Section(title, words if items else "None.", figures))
    return sections


def _details(measured: Measures) -> Section:
    return Section(
        "Counting, and answers that were no grids",
        "",
        [
            tables.counting(measured, (plan.BASE, plan.COUNTING)),
            tables.unreadable(measured),
        ],
    )
