"""What the report shows: the verdict, accuracies, gains, and what they depend on."""

from collections.abc import Sequence

from kaarel_bet.content import HeatMap, IntervalFigure, Section, Table
from kaarel_bet.estimates import Estimate
from kaarel_bet.experiments.interface import Findings, Scores
from kaarel_bet.experiments.inverse_scaling import tables
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.gains import Gains, gains
from kaarel_bet.experiments.inverse_scaling.items import Item, groups_of
from kaarel_bet.experiments.inverse_scaling.plan import (
    BASE,
    FORGETTING,
    TEST,
    Run,
    only,
    other_task,
)
from kaarel_bet.experiments.inverse_scaling.resolution import resolve
from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings
from kaarel_bet.experiments.inverse_scaling.sources import is_generated, label_of
from kaarel_bet.experiments.inverse_scaling.transfer import templates_to_train_on
from kaarel_bet.proportions import percent

_ACCURACY = "accuracy"


def find(settings: InverseScalingSettings, seed: int, scores: Scores) -> Findings:
    """The verdict and the report's content."""
    known = Evidence(scores, settings, seed)
    found = gains(known)
    sections = [
        _accuracies(known, found),
        _every_run(known),
        _by_template(known),
        _learning_curve(known),
        _transfer(known),
        _without_a_model(known),
    ]
    question = (
        f"Is {data_in_words(settings)} finetuning-proof, or do some training rows mend it for rows that "
        "were not seen, more than prompting does?"
    )
    return Findings(question, (resolve(known, found),), sections)


def data_in_words(settings: InverseScalingSettings) -> str:
    """The task, and that its rows are generated, where they are."""
    split = settings.split
    words = settings.task + label_of(settings.task, settings.data)
    if split.train_task is not None:
        words += f", after training on {split.train_task}"
        words += label_of(split.train_task, split.train_data)
    return words


def _accuracies(known: Evidence, found: Gains) -> Section:
    label = "generated rows" if is_generated(known.settings.task, known.settings.data) else "rows"
    figure = IntervalFigure(
        "accuracy",
        _ACCURACY,
        {c.title: {known.settings.claim.metric: known.accuracy(c.runs)} for c in known.conditions},
    )
    return Section(
        f"Accuracy on {len(known.part('test'))} {label} of {known.settings.task}",
        "acc and acc_norm as lm-evaluation-harness defines them. Intervals are bootstrapped over items "
        "and over runs (seeds of fine-tuning, draws of few-shot examples) at once; with few runs they "
        "know little of how much runs differ. A gain is (accuracy - zero-shot) / (1 - zero-shot).",
        [tables.accuracies(known), figure, tables.gain_table(found)],
    )


def _every_run(known: Evidence) -> Section:
    return Section(
        "Every run",
        "stderr is lm-evaluation-harness's, in points. ECE (ten bins) and Brier score (summed over "
        "classes) are of the probabilities of the classes given that one of them is said. Prompts that are "
        "longer than the model's context lose their beginning, examples first; they are counted.",
        [tables.every_run(known), tables.comparisons(known)],
    )


def _short_names(known: Evidence) -> dict[str, str]:
    """Template -> what it is called in figures."""
    templates = groups_of([*known.part("train"), *known.part("test")])
    return {template: f"T{number}" for number, template in enumerate(templates, start=1)}


def _by_template(known: Evidence) -> Section:
    test = known.part("test")
    short = _short_names(known)
    templates = groups_of(test)
    figure = IntervalFigure(
        "by-template",
        _ACCURACY,
        {
            short[template]: {
                c.title: known.accuracy(c.runs, group=template) for c in known.conditions
            }
            for template in templates
        },
    )
    legend = Table(
        ("", "template", "test rows", "option 0 right %"),
        [
            (name, template, str(len(members)), _share_of_option_0(members))
            for template, name in short.items()
            for members in [[item for item in test if item.group == template]]
        ],
    )
    return Section(
        "Accuracy by template", "Prompts that are the same modulo numbers.", [figure, legend]
    )


def _share_of_option_0(items: Sequence[Item]) -> str:
    return percent(sum(i.answer == 0 for i in items) / len(items)) if items else ""


def _learning_curve(known: Evidence) -> Section:
    series = {"fine-tuned": ("zero_shot", "fine_tuned"), "few-shot": ("few_shot",)}
    shots = str(known.settings.few_shot.shots)
    groups: dict[str, dict[str, Estimate]] = {}
    for title, kinds in series.items():
        for condition in known.conditions:
            if condition.kind in kinds:
                rows = shots if condition.kind == "few_shot" else str(condition.size)
                groups.setdefault(rows, {})[title] = known.accuracy(condition.runs)
    in_order = dict(sorted(groups.items(), key=lambda entry: int(entry[0])))
    return Section(
        "Accuracy against the number of training rows",
        "Few-shot prompting stands at the number of its examples.",
        [IntervalFigure("learning-curve", _ACCURACY, in_order, "rows", connected=True)],
    )


def _transfer(known: Evidence) -> Section:
    """Trained on one thing, tested on all, and what of the capitals is still known."""
    settings = known.settings
    templates = groups_of(known.part("test"))
    alone = templates_to_train_on(known.part("train"), settings.transfer)
    arms = {"zero-shot": (BASE,)}
    short = _short_names(known)
    arms |= {f"only {short[group]}": (only(number),) for number, group in enumerate(alone)}
    arms |= {
        condition.title: tuple(run.arm for run in condition.runs)
        for condition in known.conditions
        if condition.kind in ("fine_tuned", "placebo")
    }
    columns = [
        *templates,
        *settings.transfer.tasks,
        *(["forgetting"] * bool(settings.n_forgetting)),
    ]
    shown = [short.get(column, column) for column in columns]
    values = [
        [_cell(known, names, column, templates) for column in columns] for names in arms.values()
    ]
    return Section(
        "Transfer and forgetting",
        "Accuracy in percent of each arm (rows) on each template's test rows (columns; the templates are "
        f"listed above){_other_tasks(settings)}. The column "
        '"forgetting" has questions for capitals, which no arm was trained on: what falls there from '
        "zero-shot was forgotten.",
        [HeatMap("transfer", "trained on", "tested on", list(arms), shown, values)],
    )


def _other_tasks(settings: InverseScalingSettings) -> str:
    named = [task + label_of(task, data) for task, data in settings.transfer.tasks.items()]
    return f", and on rows of {', '.join(named)}" if named else ""


def _cell(known: Evidence, arms: tuple[str, ...], column: str, templates: list[str]) -> float:
    if column in templates:
        evaluation, group = TEST, column
    elif column == FORGETTING:
        evaluation, group = FORGETTING, None
    else:
        evaluation, group = other_task(column), None
    runs = [Run(arm, evaluation) for arm in arms]
    return float(known.correct(runs, known.settings.claim.metric, group).middle.mean())


def _without_a_model(known: Evidence) -> Section:
    return Section(
        "Leakage audit and shortcuts",
        "What test rows have in common with the rows that may be trained on, and how far one gets with "
        "no model at all, by what training rows show on their surface.",
        [tables.leakage_table(known), tables.shortcut_table(known)],
    )
