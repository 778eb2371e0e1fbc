"""What the base model knows beside the task: a probe of what fine-tuning makes it forget."""

import itertools
import random

from backends.errors import SettingsError
from kaarel_bet.experiments.countries import country_pool
from kaarel_bet.experiments.interface import Tokenize
from kaarel_bet.experiments.inverse_scaling.items import Item

_MIN_POPULATION = 1_000_000


def capitals(n: int, tokenize: Tokenize, seed: int) -> list[Item]:
    """Questions for the capital of a country, another country's capital the wrong option.

    Raises:
        SettingsError: there are not so many countries.
    """
    rng = random.Random(f"forgetting/{seed}")
    pool = list(country_pool(_MIN_POPULATION, tokenize).countries)
    if n > len(pool) - 1:
        raise SettingsError(
            f"inverse_scaling.n_forgetting: {n} are more than the {len(pool) - 1} countries there are"
        )
    drawn = rng.sample(pool, n + 1)
    items = []
    for country, other in itertools.pairwise(drawn):
        answer = rng.randrange(2)
        right, wrong = f" {country.capital}", f" {other.capital}"
        items.append(
            Item(
                id=f"capital of {country.name}",
                part="forgetting",
                group="capitals",
                prompt=f"Q: What is the capital of {country.name}? A:",
                classes=(right, wrong) if answer == 0 else (wrong, right),
                answer=answer,
            )
        )
    return items
