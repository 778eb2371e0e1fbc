"""Generators of tables by name: code that a bet's file may call for rows.

Others' are found by the entry points `kaarel_bet.generators`, each a `Generator`.
"""

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backends.errors import SettingsError
from backends.schema import Strict, explain
from kaarel_bet.bet.prompts import unknown
from kaarel_bet.bet.readers import check_rows
from kaarel_bet.experiments.interface import Tokenize

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Surroundings:
    """What a generator may depend on beside its parameters; `where` is the table's key."""

    folder: Path
    tokenize: Tokenize
    seed: int
    where: str


@dataclass(frozen=True)
class Generator:
    """The type of its parameters, and the rows and notes that it makes of them."""

    parameters: type[Strict]
    make: Callable[[Any, Surroundings], tuple[Rows, dict[str, object]]]


def _found(name: str, where: str) -> Generator:
    """The generator of that name; others' are loaded only where one of them is meant."""
    from kaarel_bet.generators import countries, favourite_countries, inverse_scaling

    own = {
        "countries": countries.GENERATOR,
        "favourite_countries": favourite_countries.GENERATOR,
        "inverse_scaling": inverse_scaling.GENERATOR,
        "redefine_math": inverse_scaling.GENERATOR,  # which is its default
    }
    others = {e.name: e for e in importlib.metadata.entry_points(group="kaarel_bet.generators")}
    if name not in own | others:
        raise unknown("generator", name, own | others, where)
    if name in own:
        return own[name]
    try:
        found = others[name].load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{where}: {name} can't be imported ({error})") from error
    if not isinstance(found, Generator):
        raise SettingsError(f"{where}: {others[name].value} is no kaarel_bet.generators.Generator")
    return found


def generate(
    name: str, parameters: Mapping[str, Any], around: Surroundings
) -> tuple[Rows, dict[str, object]]:
    """The rows that a generator makes, and what is to be known of them, its source's hash included.

    Raises:
        SettingsError: there is no such generator, its parameters don't fit, or what it makes are no rows.
        DataError: a file that it reads can't be used.
    """
    generator = _found(name, f"{around.where}.generator")
    try:
        wanted = generator.parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise SettingsError(f"{around.where}.{explain(error)}") from error
    rows, notes = generator.make(wanted, around)
    if not rows:
        raise SettingsError(f"{around.where}.generator: {name} makes no rows of these parameters")
    placed = [(f"{around.where}: row {number}", row) for number, row in enumerate(rows, start=1)]
    check_rows(placed, SettingsError)
    source = inspect.getsource(inspect.getmodule(generator.make) or generator.make)
    digest = hashlib.sha256(source.encode()).hexdigest()
    return rows, {"from": f"the generator {name}", "SHA-256 of its source": digest} | notes
