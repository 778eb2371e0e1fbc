"""Which items are tested and which may be trained on."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from backends.errors import SettingsError
from kaarel_bet.experiments.inverse_scaling.items import OTHER, Item, groups_of, normal, numbers
from kaarel_bet.experiments.inverse_scaling.settings import SplitSettings


@dataclass(frozen=True)
class Split:
    """The items of either side, and what is to be known of how they were split."""

    train: list[Item]
    test: list[Item]
    notes: dict[str, object] = field(default_factory=dict)


def split_items(items: list[Item], settings: SplitSettings, seed: int) -> Split:
    """The items of one task by the rule that the settings name; not for `by: task`.

    Items with the same prompt (but for case and white space) are on one side, whatever the rule.

    Raises:
        SettingsError: the rule leaves none to train on, or too few for a standard error.
    """
    rng = random.Random(f"split/{seed}")
    found = _RULES[settings.by](items, settings, rng)
    if not found.train or len(found.test) < 2:
        left = "no row to train on" if not found.train else "fewer than two rows to test"
        raise SettingsError(f"inverse_scaling.split: by {settings.by} leaves {left}")
    return found


def stratified_order(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """A random order whose every beginning has the templates and answers in proportion."""
    strata: defaultdict[tuple[str, int], list[Item]] = defaultdict(list)
    for item in items:
        strata[item.group, item.answer].append(item)
    placed = [
        ((place + 0.5) / len(stratum), rng.random(), item)
        for stratum in strata.values()
        for place, item in enumerate(rng.sample(stratum, len(stratum)))
    ]
    return [item for *_, item in sorted(placed, key=lambda entry: entry[:2])]


def _at_random(items: list[Item], settings: SplitSettings, rng: random.Random) -> Split:
    same_prompt: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        same_prompt[normal(item.prompt)].append(item)
    test: list[Item] = []
    for first in stratified_order([together[0] for together in same_prompt.values()], rng):
        together = same_prompt[normal(first.prompt)]
        if len(test) + len(together) <= settings.n_test:
            test += together
    return _sides(items, test)


def _by_template(items: list[Item], settings: SplitSettings, rng: random.Random) -> Split:
    templates = [group for group in groups_of(items) if group != OTHER]
    n = settings.held_out_templates
    if n >= len(templates):
        raise SettingsError(
            f"inverse_scaling.split.held_out_templates: {n} of {len(templates)} templates leave none "
            "to train on"
        )
    held_out = set(rng.sample(templates, n))
    unseen = [item for item in items if item.group in held_out]
    test = stratified_order(unseen, rng)[: settings.n_test]
    rest = [item for item in items if item.group not in held_out]
    return _sides([*rest, *test], test, {"templates held out": sorted(held_out)})


def _by_number(items: list[Item], settings: SplitSettings, rng: random.Random) -> Split:
    """No number of a test prompt is in a training prompt; items that would be on neither side are left out.

    Numbers that belong to a template's wording are in all its prompts and don't count.
    """
    varying = _varying_numbers(items)
    pool = sorted({number for found in varying.values() for number in found})
    place = {number: rng.random() for number in pool}
    test: list[Item] = []
    rest: list[Item] = []
    for percent in range(5, 100, 5):
        test = [
            item
            for item in items
            if varying[item.id] and all(place[n] < percent / 100 for n in varying[item.id])
        ]
        rest = [i for i in items if all(place[n] >= percent / 100 for n in varying[i.id])]
        if len(test) >= settings.n_test:
            break
    test = stratified_order(test, rng)[: settings.n_test]
    left_out = len(items) - len(test) - len(rest)
    return _sides([*rest, *test], test, {"rows left out": left_out})


def _varying_numbers(items: Iterable[Item]) -> dict[str, list[str]]:
    """Item id -> the numbers in its prompt that its template does not fix."""
    of_template: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_template[item.group].append(item)
    varying: dict[str, list[str]] = {}
    for group, members in of_template.items():
        found = [numbers(member.prompt) for member in members]
        fixed = {
            place
            for place, column in enumerate(zip(*found, strict=False))
            if group != OTHER and len(members) > 1 and len(set(column)) == 1
        }
        for member, own in zip(members, found, strict=True):
            varying[member.id] = [n for place, n in enumerate(own) if place not in fixed]
    return varying


def _sides(
    items: Iterable[Item], test: Iterable[Item], notes: dict[str, object] | None = None
) -> Split:
    """The test items, and what is left of the others without their prompts."""
    tested = [item.model_copy(update={"part": "test"}) for item in test]
    prompts = {normal(item.prompt) for item in tested}
    rest = [item for item in items if normal(item.prompt) not in prompts]
    return Split(rest, tested, notes or {})


_RULES: dict[str, Callable[[list[Item], SplitSettings, random.Random], Split]] = {
    "random": _at_random,
    "template": _by_template,
    "number": _by_number,
}
