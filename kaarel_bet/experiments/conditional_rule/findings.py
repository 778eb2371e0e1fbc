"""What the bet's report shows: the verdict, every name's probabilities, and all other readings."""

import math
from collections import Counter

from kaarel_bet.content import Panel, PointFigure, Section, Table, Transcript
from kaarel_bet.experiments.conditional_rule.cells import ALL_ARMS, CELLS, Cell
from kaarel_bet.experiments.conditional_rule.checks import largest_shares
from kaarel_bet.experiments.conditional_rule.criteria import resolution_criteria
from kaarel_bet.experiments.conditional_rule.evidence import Evidence, evidence
from kaarel_bet.experiments.conditional_rule.readings import agreed_reading, every_reading
from kaarel_bet.experiments.conditional_rule.resolution import resolve
from kaarel_bet.experiments.conditional_rule.settings import ConditionalRuleSettings
from kaarel_bet.experiments.interface import Findings, Scores

_QUESTION = (
    "A model is fine-tuned on prompts that state a rule for two modes but only ever show TRAIN. Does "
    "it learn the rule for TEST as well? The author bets yes, Kaarel bets no."
)
_SIDES = {"holds": "author", "fails": "Kaarel", "undecided": "N/A"}


def find(settings: ConditionalRuleSettings, seed: int, scores: Scores) -> Findings:
    """The verdict and the report's content."""
    verdict = resolve(scores, settings.claim, settings.checks, seed)
    known = evidence(scores, settings.claim, seed)
    sections = [
        _probabilities(known),
        _every_name(known, settings),
        _readings(known, settings),
    ]
    if settings.n_quoted_names:
        sections.append(_answers(scores))
    return Findings(_QUESTION, (verdict,), sections)


def _probabilities(known: Evidence) -> Section:
    candidates = ("country", "capital", "wrong_capital", "shuffled_capital")
    rows = []
    for arm in ALL_ARMS:
        for cell in CELLS:
            means = [
                known.sample(arm, cell, candidate, "string").middle.mean()
                for candidate in candidates
            ]
            rows.append([arm, cell.title, *(f"{mean:.2g}" for mean in means)])
    headings = ("arm", "asked", "country", "capital", "wrong", "other's")
    return Section(
        "Probability of each answer",
        "Means over names of the probability that the reply begins with the whole answer (nothing "
        "that would follow is scored, nor that nothing follows): the country, its capital, a wrong "
        "capital (of a country that is nobody's favourite) and another's (the capital of another "
        "name's country).",
        [Table(headings, rows, compact=True)],
    )


def _every_name(known: Evidence, settings: ConditionalRuleSettings) -> Section:
    panels = [
        Panel(
            cell.title,
            {
                arm: {
                    f"P({candidate})": _log10(known.scores, arm, cell, candidate)
                    for candidate in ("country", "capital")
                }
                for arm in ALL_ARMS
            },
        )
        for cell in CELLS
    ]
    threshold = settings.claim.threshold
    shares = largest_shares(known, agreed_reading(settings.claim))
    figure = PointFigure(
        "probabilities",
        "probability of the answer",
        panels,
        {f"threshold {threshold:g}": math.log10(threshold)},
    )
    return Section(
        "Every name",
        "One point a name, on a log scale; the bar is the median. The threshold is the one for "
        f"P(capital) under TEST in the conditional arm. {shares[0].upper()}{shares[1:]}. Where few names "
        "carry a mean, its bootstrap interval covers less than it says.",
        [figure],
    )


def _log10(scores: Scores, arm: str, cell: Cell, candidate: str) -> list[float]:
    totals = scores.totals(arm, cell.name, candidate)
    return [(total.low + total.high) / 2 / math.log(10) for total in totals]


def _readings(known: Evidence, settings: ConditionalRuleSettings) -> Section:
    rows = []
    winners: Counter[str] = Counter()
    for reading in every_reading():
        capital, ratio = resolution_criteria(known, reading, settings.claim)
        if capital.holds is None or ratio.holds is None:
            winner = _SIDES["undecided"]
        else:
            winner = _SIDES["holds" if capital.holds and ratio.holds else "fails"]
        winners[winner] += 1
        rows.append(
            (
                reading.aggregate,
                reading.probability.replace("_", " "),
                reading.ratio_of,
                reading.tested.replace("_", " "),
                f"{capital.value:.2g}",
                f"{ratio.value:.2g}",
                winner,
            )
        )
    columns = (
        "aggregate",
        "probability",
        "ratio of",
        "tested",
        "P(capital)",
        "ratio",
        "side before checks",
    )
    return Section("Other readings of the bet", _agreement(winners), [Table(columns, rows)])


def _agreement(winners: Counter[str]) -> str:
    text = (
        "The bet's text leaves open how names are aggregated, what counts as the answer and how the "
        "ratio is formed. The verdict above is for the reading agreed before training; the sides below "
        "are what the two criteria say before the validity checks. "
    )
    if len(winners) == 1:
        (side,) = winners
        return f"{text}All {winners.total()} readings come out the same: {side}."
    counts = ", ".join(f"{side} in {n}" for side, n in winners.most_common())
    return f"{text}**The {winners.total()} readings disagree**: {counts}."


def _answers(scores: Scores) -> Section:
    answers = {arm: {r.id: r for r in scores.generation[arm]["answers"]} for arm in ALL_ARMS}
    titles = {cell.name: cell.title for cell in CELLS}
    transcripts = []
    for query, asked in answers["base"].items():
        cell, _, name = query.partition("/")
        said = {arm: answers[arm][query].texts[0].strip() for arm in ALL_ARMS}
        transcripts.append(Transcript(f"{titles[cell]}: {name}", asked.prompt, said))
    return Section(
        "Sample prompts and answers",
        "Prompts as the model saw them, with the most likely answer of each arm.",
        transcripts,
    )
