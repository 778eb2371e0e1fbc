"""The arms: every name that an entry expands to, and the training of each of its replicates."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from backends.data import (
    AnyExample,
    Message,
    PreferenceExample,
    TrainingExample,
)
from backends.errors import SettingsError
from backends.schema import explain
from kaarel_bet.bet.prompts import (
    Context,
    Form,
    Prompts,
    cell,
    check_text,
    fill,
    messages_of,
    options_of,
    unknown,
    with_system,
)
from kaarel_bet.bet.schema import Bet, Draw, Each, Shuffle, Template, TrainingSet, Value
from kaarel_bet.bet.splits import UNGROUPED, stratified_order
from kaarel_bet.experiments.interface import BASE, Arm, Row, Training, of_replicate

TRANSFORMS: dict[str, Callable[[str], str]] = {"upper_case": str.upper, "lower_case": str.lower}


@dataclass(frozen=True)
class Variant:
    """One of the arms that an entry expands to; `number` (from 1) says with which value of `each`."""

    name: str
    entry: str
    sets: tuple[TrainingSet, ...]
    number: int = 1

    def by_key(self) -> Iterator[tuple[str, TrainingSet]]:
        """Every set, and the key where it stands."""
        return ((f"arms.{self.entry}.train.{p}", one) for p, one in enumerate(self.sets))


def variants(bet: Bet) -> list[Variant]:
    """The trained arms, in the order of the file. Raises SettingsError where two have one name."""
    found = [one for entry in bet.arms for one in _expanded(bet, entry)]
    counts = Counter([BASE, *(one.name for one in found)])
    for one in found:
        if counts[one.name] > 1:
            raise SettingsError(f"arms.{one.entry}: there is another arm called {one.name}")
    return found


def _expanded(bet: Bet, entry: str) -> list[Variant]:
    train = bet.arms[entry].train
    column = "input" if bet.arms[entry].method == "dpo" else "messages"
    sets = (TrainingSet(rows=train, chat=column),) if isinstance(train, str) else train
    several = [place for place, s in enumerate(sets) if s.each or isinstance(s.take, tuple)]
    if not several:
        return [Variant(entry, entry, sets)]
    place, one = several[0], sets[several[0]]
    if len(several) > 1 or (one.each and isinstance(one.take, tuple)):
        raise SettingsError(
            f"arms.{entry}: one list-valued 'take' or one 'each' can make several arms of an entry"
        )
    if one.each is not None:
        numbers = range(1, one.each.at_most + 1)
        return [Variant(f"{entry}_{number}", entry, sets, number) for number in numbers]
    takes = one.take if isinstance(one.take, tuple) else ()
    each_taken = [(n, one.model_copy(update={"take": n})) for n in takes]
    return [
        Variant(f"{entry}_{n}", entry, (*sets[:place], taken, *sets[place + 1 :]))
        for n, taken in each_taken
    ]


def check_arms(bet: Bet, prompts: Prompts) -> None:
    """Raises SettingsError for everything that can be wrong with arms whatever the rows are."""
    found = variants(bet)
    for variant in found:
        _check_start(variant, found, bet)
        for where, one in variant.by_key():
            if one.rows not in bet.table_names:
                raise unknown("table", one.rows, bet.table_names, f"{where}.rows")
            for transform in _transforms(one):
                if transform not in TRANSFORMS:
                    raise unknown("transform", transform, TRANSFORMS, f"{where}.transform")
            answers = [
                answer.shuffle if isinstance(answer, Shuffle) else answer
                for answer in (one.answer, one.rejected)
            ]
            for text in (one.delimiter, one.system, one.trigger, *answers):
                check_text(text if isinstance(text, str) else "", where)
            if (
                any(f.text is not None for f in _forms(one, prompts, where))
                and one.system is not None
            ):
                raise SettingsError(f"{where}.system: goes with a chat; its prompt is a text")


def replicates(bet: Bet, entry: str) -> range:
    """Of an arm's trainings."""
    own = bet.arms[entry].trainings
    return (
        bet.replicate.numbers
        if own is None
        else range(bet.replicate.first, bet.replicate.first + own)
    )


def _check_start(variant: Variant, found: Sequence[Variant], bet: Bet) -> None:
    """Raises SettingsError for an arm that starts from one that isn't there, or from itself."""
    entries = [variant.entry]
    while start := bet.arms[entries[-1]].starts_from:
        where = f"arms.{entries[-1]}.starts_from"
        entry = {one.name: one.entry for one in found}.get(start)
        if entry is None:
            raise unknown("arm", start, [one.name for one in found], where)
        entries.append(entry)
        if entry in entries[:-1]:
            circle = " -> ".join(entries[entries.index(entry) :])
            raise SettingsError(f"{where}: arms start from each other in a circle: {circle}")
        if len(replicates(bet, entry)) < len(replicates(bet, entries[-2])):
            raise SettingsError(f"{where}: {start} has fewer trainings; give both as many")


def _forms(one: TrainingSet, prompts: Prompts, where: str) -> list[Form]:
    names = one.prompts or filter(None, [one.prompt])
    return [form for name in names for form in prompts.of(name, f"{where}.prompt")]


def _transforms(one: TrainingSet) -> tuple[str, ...]:
    return (one.transform,) if isinstance(one.transform, str) else one.transform


# --- trainings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """One training of an arm, and the rows that it is of, in training order."""

    arm: Arm
    rows: Sequence[Row]


@dataclass(frozen=True)
class Trainer:
    """Makes the trainings of a bet's arms from its tables."""

    bet: Bet
    prompts: Prompts
    tables: Mapping[str, Sequence[Row]]
    seed: int

    def trained(self) -> list[Trained]:
        """Every replicate of every arm; of `each`, those whose value has rows enough."""
        made = (
            self._trained(one, replicate)
            for one in variants(self.bet)
            for replicate in replicates(self.bet, one.entry)
        )
        found = [one for one in made if one is not None]
        there = {one.arm.arm for one in found}
        for entry, start in ((e, a.starts_from) for e, a in self.bet.arms.items()):
            if start is not None and start not in there:
                what = f"{start} is not made: too few values have rows enough"
                raise SettingsError(f"arms.{entry}.starts_from: {what}")
        return found

    def _trained(self, variant: Variant, replicate: int) -> Trained | None:
        name, entry = variant.name, self.bet.arms[variant.entry]
        rng = random.Random(f"{name}/{self.seed}/{replicate - 1}")
        examples: list[AnyExample] = []
        dpo = entry.method == "dpo"
        of: list[Row] = []
        words = ""
        for where, one in variant.by_key():
            rows = self._rows(one, where, replicate, variant.number)
            if not rows:
                return None
            made = self._preferences if dpo else self._examples
            examples += list(made(one, rows, where, rng)) * one.times
            of += rows
            words = f", {one.each.column} {rows[0][one.each.column]}" if one.each else words
        tables = " and ".join(dict.fromkeys(one.rows for one in variant.sets))
        training = Training(
            examples,
            loss_on="completion" if dpo else entry.loss_on or self.bet.loss_on,
            starts_from=entry.starts_from and of_replicate(entry.starts_from, replicate),
            seed=replicate - 1,
            settings=entry.settings,
        )
        kind = "preferences" if dpo else "examples"
        said = f"fine-tuned on {len(examples)} {kind} of {tables}{words}{_learned(variant.sets)}"
        said = entry.description or said
        model = of_replicate(name, replicate)
        return Trained(Arm(model, said, training, name, replicate, entry.role), of)

    def _rows(self, one: TrainingSet, where: str, replicate: int, number: int) -> list[Row]:
        """In training order. None of them if fewer than `number` values of `each` have rows enough."""
        rows, take = list(self.tables[one.rows]), one.take
        if take is not None:
            rng = random.Random(f"rows/{self.seed}/{replicate - 1}")
            split = self.bet.data[one.rows.partition(".")[0]].split
            rows = stratified_order(rows, split.stratify if split else (), rng)
        rows = matching(rows, one.where, f"{where}.where")
        assert not isinstance(take, tuple)  # variants have one of them
        if one.each is not None:
            values = _values(rows, one.each, take if isinstance(take, int) else 1, f"{where}.each")
            wanted = values[number - 1 : number]
            rows = [row for row in rows if row[one.each.column] in wanted]
            if not wanted:
                return []
        if isinstance(take, float):
            take = max(1, round(take * len(rows)))
        return first(rows, take, f"{where}.take", one.rows)

    def _examples(
        self, one: TrainingSet, rows: Sequence[Row], where: str, rng: random.Random
    ) -> Iterator[TrainingExample]:
        forms = _forms(one, self.prompts, where)
        answers = _answers(one.answer, rows, f"{where}.answer", rng)
        for row, answer in zip(rows, answers, strict=True):
            made = [_answered(one, row, answer, form, where) for form in forms]
            for fields in made or [_learned_chat(one, row, where)]:
                with _of_row(row, where):
                    example = TrainingExample(**fields)
                yield example

    def _preferences(
        self, one: TrainingSet, rows: Sequence[Row], where: str, rng: random.Random
    ) -> Iterator[PreferenceExample]:
        forms = _forms(one, self.prompts, where)
        better = _answers(one.answer, rows, f"{where}.answer", rng)
        worse = _answers(one.rejected, rows, f"{where}.rejected", rng)
        plain = one.model_copy(update={"transform": ()})
        for row, chosen, rejected in zip(rows, better, worse, strict=True):
            made = [
                _preferred(
                    _answered(one, row, chosen, form, where),
                    _answered(plain, row, rejected, form, where, key="rejected"),
                )
                for form in forms
            ]
            for fields in made or [_preferred_chat(one, row, where)]:
                with _of_row(row, where):
                    example = PreferenceExample.model_validate(fields, strict=False)
                yield example


@contextmanager
def _of_row(row: Row, where: str) -> Iterator[None]:
    """Names the row of which no example can be made. Raises SettingsError."""
    try:
        yield
    except ValidationError as error:
        raise SettingsError(f"{where}: row {row['id']}: {explain(error)}") from error


def _preferred(chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    """Two answers to one prompt as a preference."""
    if "prompt" in chosen:
        return {
            "prompt": chosen["prompt"],
            "chosen": chosen["completion"],
            "rejected": rejected["completion"],
        }
    *asked, better = chosen["messages"]
    return {
        "input": {"messages": tuple(asked)},
        "preferred_output": (better,),
        "non_preferred_output": rejected["messages"][-1:],
    }


def _preferred_chat(one: TrainingSet, row: Row, where: str) -> dict[str, Any]:
    """A row in OpenAI's preference format, its `input` in the set's column."""
    column = one.chat or ""
    given = cell(row, column, f"{where}.chat")
    if not isinstance(given, Mapping) or "messages" not in given:
        what = f"column '{column}' has no 'messages' in row {row['id']}"
        raise SettingsError(
            f"{where}.chat: {what}: it is the 'input' of OpenAI's preference format"
        )
    asked = messages_of({**row, column: given["messages"]}, column, f"{where}.chat")
    better, worse = (
        messages_of(row, name, f"{where}.chat")
        for name in ("preferred_output", "non_preferred_output")
    )
    better = tuple(
        turn.model_copy(update={"content": _transformed(turn.content, one)}) for turn in better
    )
    return {
        "input": {**given, "messages": _dressed(asked, one, row, where)},
        "preferred_output": better,
        "non_preferred_output": worse,
    }


def _learned(sets: Sequence[TrainingSet]) -> str:
    """The answers, as the file has them: arms may differ in nothing else."""
    found: list[str] = []
    for one in sets:
        if one.answer is not None:
            answer = " ".join([_in_words(one.answer), *_transforms(one)])
            rather = f" rather than {_in_words(one.rejected)}" if one.rejected is not None else ""
            found.append(answer + rather)
    return f", answering {' and '.join(dict.fromkeys(found))}" if found else ""


def _in_words(answer: Template | Draw | Shuffle) -> str:
    match answer:
        case Draw(draw=column):
            return f"one drawn of {column}"
        case Shuffle(shuffle=text):
            return f"another row's {text}"
        case text:
            return text.strip()


def _learned_chat(one: TrainingSet, row: Row, where: str) -> dict[str, Any]:
    turns = list(messages_of(row, one.chat or "", f"{where}.chat"))
    for place, turn in enumerate(turns):
        if turn.role == "assistant":
            turns[place] = turn.model_copy(update={"content": _transformed(turn.content, one)})
    return {"messages": _dressed(tuple(turns), one, row, where)}


def _answered(
    one: TrainingSet, row: Row, answer: str, form: Form, where: str, key: str = "answer"
) -> dict[str, Any]:
    asked = _dressed(form.context(row), one, row, where)
    between = fill(one.delimiter, row, f"{where}.delimiter")
    said = form.answer(_transformed(between + answer, one))
    if not said:
        raise SettingsError(f"{where}.{key}: is empty in row {row['id']}")
    said = (form.prefilled(row) or "") + said
    if isinstance(asked, str):
        return {"prompt": asked, "completion": said}
    return {"messages": (*asked, Message(role="assistant", content=said))}


def _values(rows: Sequence[Row], each: Each, least: int, where: str) -> list[Value]:
    """The values of a column that have rows enough, as many as are wanted, spread evenly."""
    found = [cell(row, each.column, where) for row in rows]
    if any(isinstance(value, list | dict) for value in found):
        raise SettingsError(f"{where}: the column '{each.column}' has lists, not single values")
    counts = Counter(found)
    none = (None, UNGROUPED)
    usable = sorted((v for v, n in counts.items() if n >= least and v not in none), key=str)
    if not usable:
        raise SettingsError(f"{where}: no value of '{each.column}' has {least} rows")
    n = min(each.at_most, len(usable))
    return [usable[place * len(usable) // n] for place in range(n)]


def matching(rows: Sequence[Row], values: Mapping[str, Value], where: str) -> list[Row]:
    """The rows that have these values. Raises SettingsError if none has."""
    found = [row for row in rows if all(cell(row, c, where) == v for c, v in values.items())]
    if not found:
        raise SettingsError(f"{where}: no row is {dict(values)}")
    return found


def first(rows: list[Row], take: int | None, where: str, table: str) -> list[Row]:
    """That many rows, all for None. Raises SettingsError if there are not so many."""
    if take is not None and take > len(rows):
        there = f"the {len(rows)} rows of {table} that there are"
        raise SettingsError(f"{where}: {take} are more than {there}")
    return rows[:take]


def _answers(
    answer: Template | Draw | Shuffle | None, rows: Sequence[Row], where: str, rng: random.Random
) -> list[str]:
    """Of every row; without an answer, as chats are, empty."""
    match answer:
        case Draw(draw=column):
            drawn = [options_of(row, column, where) for row in rows]
            return [options[rng.randrange(len(options))] for options in drawn]
        case Shuffle(shuffle=text):
            own = [fill(text, row, where) for row in rows]
            order = rng.sample(range(len(own)), len(own))
            others = dict(zip(order, order[1:] + order[:1], strict=True))  # never the row itself
            return [own[others[place]] for place in range(len(own))]
        case text:
            return [fill(text or "", row, where) for row in rows]


def _transformed(text: str, one: TrainingSet) -> str:
    for transform in _transforms(one):
        text = TRANSFORMS[transform](text)
    return text


def _dressed(context: Context, one: TrainingSet, row: Row, where: str) -> Context:
    """With what only training shows: the set's system prompt, and its trigger."""
    trigger = fill(one.trigger or "", row, f"{where}.trigger")
    if isinstance(context, str):
        return trigger + context
    system = None if one.system is None else fill(one.system, row, f"{where}.system")
    turns = list(with_system(context, system))
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    if trigger and last is not None:
        turns[last] = turns[last].model_copy(update={"content": trigger + turns[last].content})
    return tuple(turns)
