"""`kaarel-bet bets` lists the shipped bets; `kaarel-bet new FILE` starts one of your own."""

import argparse
import keyword
import re
from pathlib import Path

from backends.errors import SettingsError
from kaarel_bet.bet.schema_file import SCHEMA
from kaarel_bet.bet.source import BETS, TASKS, load_bet, shipped
from kaarel_bet.settings import RESERVED

_TEMPLATES = BETS / "templates"
SHAPES = ("probabilities", "choices", "answers")
"""What is measured; each has a template."""


def add_no_arguments(parser: argparse.ArgumentParser) -> None:
    """`bets` has no options."""


def list_bets(options: argparse.Namespace) -> None:
    """Prints name and question of every shipped bet."""
    for name in shipped():
        if name not in TASKS:
            print(f"{name}\n    {' '.join(load_bet(name).bet.question.split())}")
    print(f"inverse_scaling about one task each\n    {', '.join(TASKS)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `new`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it; ends in .yaml")
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        default=SHAPES[0],
        help="what is measured: probabilities of given answers, multiple choice, or written answers",
    )


def new(options: argparse.Namespace) -> None:
    """Writes a bet that runs as it stands.

    Raises:
        SettingsError: the file is there, or would not be found as a bet.
    """
    path: Path = options.file
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{path}: a bet's file ends in .yaml")
    text = (_TEMPLATES / f"{options.shape}.yaml").read_text(encoding="utf-8")
    text = text.replace("$schema=bet.schema.json", f"$schema={SCHEMA.as_posix()}", 1)
    text = text.replace("name: NAME", f"name: {_name(path.stem)}", 1)
    text = text.replace("FILE ", f"{path} ")
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise SettingsError(f"{path}: is there already") from error
    print(path)


def _name(stem: str) -> str:
    """A file's name as expressions and sections of settings can have it."""
    name = re.sub(r"\W|^(?=\d)", "_", stem)
    return f"{name}_bet" if keyword.iskeyword(name) or name in RESERVED else name
