"""Where a task's rows come from: generated here, a file, or the Hugging Face hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download

from backends.errors import DataError, SettingsError
from kaarel_bet.experiments.inverse_scaling.items import Row
from kaarel_bet.experiments.inverse_scaling.redefine import redefine_rows
from kaarel_bet.experiments.inverse_scaling.rows import read_rows

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

DELIMITERS = {"winobias_antistereotype": " "}
"""Task -> its `target_delimiter` there, where that is not empty."""

GENERATED = "generated from the dataset card's nine templates, not the official rows"


@dataclass(frozen=True)
class Source:
    """Rows and, in words, where they are from."""

    rows: list[Row]
    origin: str


def is_generated(task: str, data: str) -> bool:
    """Whether `load` would generate the rows."""
    return data == "generated" or (data == "auto" and task == "redefine_math")


def label_of(task: str, data: str) -> str:
    """What stands behind the task's name: that its rows are generated, where they are."""
    return f" ({GENERATED})" if is_generated(task, data) else ""


def load(task: str, data: str, *, n_generated: int, seed: int, setting: str) -> Source:
    """A task's rows. `data` is "auto", "generated", "hub" or a file; `setting` is its key.

    "auto" generates redefine_math and gets every other task from the hub.

    Raises:
        DataError: a file that can't be used, or a hub that can't be reached.
        SettingsError: the task can't be generated, or not so many rows.
    """
    if not is_generated(task, data):
        if data in ("auto", "hub"):
            return _delimited(_from_hub(task, setting), task)
        rows = _from_file(Path(data), task, setting)
        return _delimited(Source(rows, f"the file {Path(data).name}"), task)
    if task != "redefine_math":
        raise SettingsError(
            f"{setting}: only redefine_math can be generated; {_how(task, setting)}"
        )
    try:
        return Source(redefine_rows(n_generated, seed), GENERATED)
    except ValueError as error:
        raise SettingsError(f"inverse_scaling.n_items: {error}") from error


def _delimited(source: Source, task: str) -> Source:
    between = {"delimiter": DELIMITERS.get(task, "")}
    return Source([row.model_copy(update=between) for row in source.rows], source.origin)


def _from_file(path: Path, task: str, setting: str) -> list[Row]:
    if not path.exists():
        raise DataError(f"{path}: no such file; {_how(task, setting)}")
    return read_rows(path)


def _from_hub(task: str, setting: str) -> Source:
    repository = HUB[task]
    try:
        files = HfApi().list_repo_files(repository, repo_type="dataset")
        path = hf_hub_download(repository, _usable(files, task, setting), repo_type="dataset")
    except DataError:
        raise
    except Exception as error:  # of several HTTP libraries
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DataError(
            f"task {task}: the hub can't be reached{offline}: {type(error).__name__}; "
            f"{_how(task, setting)}"
        ) from error
    return Source(read_rows(Path(path)), f"{repository} on the Hugging Face hub")


def _usable(files: Sequence[str], task: str, setting: str) -> str:
    """The one file with rows; Parquet, which takes an extra to read, where there is no other."""
    for endings in ((".jsonl", ".csv"), (".parquet",)):
        usable = [file for file in files if file.endswith(endings)]
        if len(usable) == 1:
            return usable[0]
        if usable:
            break
    raise DataError(
        f"{HUB[task]} on the hub has {len(usable)} .jsonl, .csv or .parquet files, not one; get the one "
        f"that you mean and pass it with --set {setting}=FILE"
    )


def _how(task: str, setting: str) -> str:
    return (
        f"get its rows where there is a network, from https://huggingface.co/datasets/{HUB[task]}, and "
        f"pass the file (.jsonl, .csv or .parquet) with --set {setting}=FILE"
    )
