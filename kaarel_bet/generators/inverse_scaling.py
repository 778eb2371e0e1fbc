"""Rows of the eleven Inverse Scaling tasks (https://arxiv.org/abs/2306.09479).

From the Hugging Face hub or a file in the forms that the prize gave them: `prompt`, `classes` (a list or
its text) and `answer_index`; winobias has `text` and `target` instead. Other columns (`part`, `round`, an
index) are passed over. redefine_math can also be generated, after its dataset card's nine templates.
"""

import ast
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from backends.errors import DataError, SettingsError
from backends.schema import Positive, Strict, did_you_mean
from kaarel_bet.bet.readers import check_rows, from_hub, place_among, read_placed, shown
from kaarel_bet.bet.schema import Hub
from kaarel_bet.bet.splits import UNGROUPED
from kaarel_bet.generators import Generator, Rows, Surroundings
from kaarel_bet.generators.redefine_math import redefine_rows

HUB = {
    "hindsight_neglect_10shot": "inverse-scaling/hindsight-neglect-10shot",
    "redefine_math": "inverse-scaling/redefine-math",
    "quote_repetition": "inverse-scaling/quote-repetition",
    "neqa": "inverse-scaling/NeQA",
    "winobias_antistereotype": "mathemakitten/winobias_antistereotype_test_v5",
    "into_the_unknown": "Albertmade/into-the-unknown",
    "memo_trap": "Albertmade/memo-trap",
    "modus_tollens": "Albertmade/modus-tollens",
    "pattern_matching_suppression": "Albertmade/pattern-matching-suppression",
    "repetitive_algebra": "Albertmade/repetitive-algebra",
    "sig_figs": "Albertmade/sig-figs",
}
"""Task -> its dataset on the hub, as lm-evaluation-harness has them (tasks/inverse_scaling)."""

_DELIMITERS = {"winobias_antistereotype": " "}
"""Task -> its `target_delimiter` there, where that is not empty."""

GENERATED = "generated from the dataset card's nine templates, not the official rows"

_SMALLEST_SHARE = 0.02
"""Of the rows that a wording must have, to count as a template."""


def _task(name: str) -> str:
    if name not in HUB:
        raise ValueError(f"no task '{name}'; {did_you_mean(name, HUB)}")
    return name


class Parameters(Strict):
    """Which task, and where its rows are from: auto generates redefine_math, others are the hub's."""

    task: Annotated[str, AfterValidator(_task)] = "redefine_math"
    source: Annotated[str, Field(min_length=1)] = "auto"
    n: Positive = 600


def inverse_scaling(wanted: Parameters, around: Surroundings) -> tuple[Rows, dict[str, object]]:
    """Rows with prompt, classes, answer_index, delimiter, template and the numbers that it leaves open.

    Raises:
        DataError: a file that can't be used, or a hub that can't be reached.
        SettingsError: the task can't be generated, or not so many rows.
    """
    rows, origin = _load(wanted, around)
    alike: defaultdict[str, Rows] = defaultdict(list)
    for row, template in zip(rows, _templates(rows), strict=True):
        row["template"] = template
        alike[template].append(row)
    for template, members in alike.items():
        found = [re.findall(r"\d+", row["prompt"]) for row in members]
        fixed = [len(set(column)) == 1 for column in zip(*found, strict=False)]
        for row, numbers in zip(members, found, strict=True):
            row["numbers"] = [
                number
                for number, is_fixed in itertools.zip_longest(numbers, fixed)
                if template == UNGROUPED or not is_fixed
            ]
    return rows, {f"rows of {wanted.task}": origin}


def _load(wanted: Parameters, around: Surroundings) -> tuple[Rows, str]:
    task, source = wanted.task, wanted.source
    instead = (
        f"get its rows where there is a network, from https://huggingface.co/datasets/{HUB[task]}, and "
        f"name the file (.jsonl, .csv or .parquet) as {around.where}.source"
    )
    if source == "generated" or (source == "auto" and task == "redefine_math"):
        if task != "redefine_math":
            raise SettingsError(
                f"{around.where}.source: only redefine_math can be generated; {instead}"
            )
        made = redefine_rows(wanted.n, around.seed)
        if len(made) < wanted.n:
            raise SettingsError(f"{around.where}.n: there are only {len(made)} items")
        return [_row(p, c, a, task) for p, c, a in made], GENERATED
    if source in ("auto", "hub"):
        path = from_hub(Hub(path=HUB[task]), instead)
        origin = f"{HUB[task]} on the Hugging Face hub"
    else:
        path = next((p for p in (around.folder / source, Path(source)) if p.exists()), None)
        if path is None:
            raise DataError(f"{source}: no such file; {instead}")
        origin = f"the file {path.name}"
    return [_checked(record, place, task) for place, record in read_placed(path)], origin


GENERATOR = Generator(Parameters, inverse_scaling)


def _row(prompt: str, classes: Sequence[str], answer: int, task: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "classes": list(classes),
        "answer_index": answer,
        "delimiter": _DELIMITERS.get(task, ""),
    }


# --- templates ----------------------------------------------------------------------------------------


def _templates(rows: Rows) -> list[str]:
    """Every row's prompt up to "Q:" with "#" for its numbers, or `UNGROUPED` where few rows share it."""
    found = [re.sub(r"\d+", "#", row["prompt"]).partition(" Q:")[0] for row in rows]
    counts = Counter(found)
    least = max(2, _SMALLEST_SHARE * len(found))
    return [name if counts[name] >= least else UNGROUPED for name in found]


# --- rows of files ------------------------------------------------------------------------------------


def _checked(record: Mapping[str, Any], where: str, task: str) -> dict[str, Any]:
    prompt_field = _field(record, ("prompt", "text"), where)
    answer_field = _field(record, ("answer_index", "target"), where)
    prompt = record[prompt_field]
    if not isinstance(prompt, str):
        raise DataError(f"{where}: {prompt_field}: must be text (got {shown(prompt)})")
    classes = _classes(record[_field(record, ("classes",), where)], where)
    # Python's escapes can write half of a character as well as JSON's.
    check_rows([(where, {"classes": classes})])
    answer = place_among(classes, record[answer_field], f"{where}: {answer_field}")
    return _row(prompt, classes, answer, task)


def _field(record: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    for name in names:
        if name in record:
            return name
    raise DataError(f"{where}: {' or '.join(names)}: missing")


def _classes(value: object, where: str) -> tuple[str, ...]:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            parsed = None
    if not isinstance(parsed, list | tuple) or not all(isinstance(c, str) and c for c in parsed):
        raise DataError(f"{where}: classes: must be a list of texts (got {shown(value)})")
    if len(parsed) < 2 or len(set(parsed)) < len(parsed):
        raise DataError(
            f"{where}: classes: must be two or more different texts (got {shown(value)})"
        )
    return tuple(parsed)
