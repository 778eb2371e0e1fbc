"""The questions: what an evaluation asks of whom, in which words, and the queries that it makes."""

import itertools
import random
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.data import GenerationQuery, Message, ScoringQuery
from backends.errors import SettingsError
from kaarel_bet.bet import schema
from kaarel_bet.bet.arms import Trained, first, matching, variants
from kaarel_bet.bet.graders import Grading, graders_of, quantities_of
from kaarel_bet.bet.prompts import (
    Context,
    Form,
    Prompts,
    cell,
    check_text,
    fill,
    options_of,
    unknown,
)
from kaarel_bet.bet.schema import Bet
from kaarel_bet.experiments.interface import (
    BASE,
    Asked,
    Evaluation,
    Row,
    Tokenize,
    of_replicate,
)

TRAINED_ON = "trained_on"
"""What `rows` is for an evaluation that asks every trained arm its own rows."""


@dataclass(frozen=True)
class Asking:
    """A question as it is asked: in these forms (several are phrasings), of these arms."""

    name: str
    evaluation: str
    spec: schema.Evaluation
    forms: tuple[Form, ...] = ()
    system: str | None = None
    arms: tuple[str, ...] = ()
    own_rows_of: str | None = None
    """The arm whose training rows are asked."""
    after: "Asking | None" = None
    """The question after whose answers it is asked."""
    tables: tuple[str, ...] = ()
    """Where the rows are from."""

    @property
    def where(self) -> str:
        """The evaluation's key."""
        return f"evaluations.{self.evaluation}"

    @property
    def table(self) -> str:
        """Questions alike in this are about the same rows, in the same order, as often each."""
        spec = self.spec
        rows = f"{TRAINED_ON}.{self.own_rows_of}" if self.own_rows_of else spec.rows
        parts = self.n_places * self.samples
        words = [rows or self.evaluation, *(f"{c}={v}" for c, v in sorted(spec.where.items()))]
        words += [f"the first {spec.take}"] if spec.take is not None else []
        words += [f"after {self.after.name}"] if self.after else []
        words += [f"{parts} times"] if parts > 1 else []
        return ", ".join(words)

    @property
    def samples(self) -> int:
        """How many answers a query has."""
        return self.spec.generate.samples if self.spec.generate else 1

    @property
    def n_places(self) -> int:
        """How many queries a row has: phrasings, or answers that it is asked after."""
        if self.after is not None:
            return self.after.n_places * self.after.samples
        return max(1, len(self.forms))

    def row_of(self, query_id: str) -> str:
        """The id of a query's row, which it begins with."""
        first, n_marks = self, 0
        while first.after is not None:
            first = first.after
            n_marks += first.samples > 1
        n_marks += len(first.forms) > 1
        mark = r"[/#]\d+"
        return re.sub(f"(?:{mark}){{{n_marks}}}$", "", query_id)

    def rows(self, tables: Mapping[str, Sequence[Row]]) -> list[Row]:
        """Those of its tables; where it has none, one that stands for them."""
        return [row for name in self.tables for row in tables[name]] or [{"id": self.evaluation}]

    def asked(self, rows: Sequence[Row]) -> list[Row]:
        """Those of the rows that are asked. Raises SettingsError if there are not so many."""
        if self.after is not None:
            return self.after.asked(rows)
        chosen, take = matching(rows, self.spec.where, f"{self.where}.where"), self.spec.take
        if self.own_rows_of is not None:  # arms have different numbers of them
            return chosen[:take]
        return first(chosen, take, f"{self.where}.take", self.spec.rows or self.evaluation)

    def answers(self, row: Row) -> dict[str, str]:
        """Label -> answer to be scored, as the row has it."""
        spec = self.spec
        if spec.options is not None:
            options = options_of(row, spec.options, f"{self.where}.options")
            return {str(place): text for place, text in enumerate(options)}
        return {
            name: fill(text, row, f"{self.where}.candidates.{name}")
            for name, text in (spec.candidates or {}).items()
        }

    def right(self, row: Row) -> int | None:
        """The place of the right answer among them, where one is. Raises SettingsError if it is none."""
        spec = self.spec
        if spec.answer is None:
            return None
        if spec.candidates is not None:
            return list(spec.candidates).index(spec.answer)
        place = cell(row, spec.answer, f"{self.where}.answer")
        n = len(self.answers(row))
        if type(place) is not int or not 0 <= place < n:
            what = f"column '{spec.answer}' of row {row['id']} is {place!r}"
            raise SettingsError(f"{self.where}.answer: {what}, not a place from 0 to {n - 1}")
        return place

    def known(self, row: Row) -> dict[str, float]:
        """Grader -> what it should come to, of an answer that is given. Raises SettingsError."""
        return {name: self._known(name, row) for name in self.spec.known}

    def _known(self, grader: str, row: Row) -> float:
        where, known = f"{self.where}.known.{grader}", self.spec.known[grader]
        if isinstance(known, dict):
            values = ((cell(row, column, where), value) for column, value in known.items())
            return float(all(found == value for found, value in values))
        value = cell(row, known, where)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            what = f"column '{known}' of row {row['id']} is {value!r}, which is no number"
            raise SettingsError(f"{where}: {what}") from error


def askings(bet: Bet, prompts: Prompts) -> list[Asking]:
    """Every question, in the order of the file. Raises SettingsError for a name that does not exist."""
    found: dict[str, Asking] = {}
    for name, spec in bet.evaluations.items():
        made = _askings(bet, prompts, name, spec)
        if spec.after is not None:
            first = [one for one in found.values() if one.evaluation == spec.after]
            made = _after(bet, prompts, name, spec, first)
        for one in made:
            if one.name in found:
                raise SettingsError(f"{one.where}: two of its questions are called {one.name}")
            found[one.name] = one
    return list(found.values())


def _after(
    bet: Bet, prompts: Prompts, name: str, spec: schema.Evaluation, first: Sequence[Asking]
) -> Iterator[Asking]:
    """The same rows of the same arms, asked on."""
    where = f"evaluations.{name}"
    _check(bet, name, spec, where)
    before = [one for one, of in bet.evaluations.items() if of.generate is not None and one != name]
    if spec.after not in before:
        raise unknown("evaluation with answers", spec.after or "", before, f"{where}.after")
    if not first:
        raise SettingsError(f"{where}.after: '{spec.after}' must stand before it in the file")
    form, *others = forms = prompts.of(spec.prompt or "", f"{where}.prompt")
    if others:
        raise SettingsError(f"{where}.prompt: asks on in one phrasing, and this has {len(forms)}")
    turns = [turn.role for turn in form.turns]
    if (
        "system" in turns
        or not turns
        or any(one.text is not None for of in first for one in of.forms)
    ):
        raise SettingsError(
            f"{where}.prompt: asks on in a chat, so it is turns without a system prompt"
        )
    for one in first:
        called = name + one.name.removeprefix(one.evaluation)
        yield replace(one, name=called, evaluation=name, spec=spec, forms=forms, after=one)


def _askings(bet: Bet, prompts: Prompts, name: str, spec: schema.Evaluation) -> Iterator[Asking]:
    where = f"evaluations.{name}"
    _check(bet, name, spec, where)
    if spec.given is not None:
        yield Asking(name, name, spec, tables=(spec.rows,) if spec.rows else ())
        return
    arms = _arms(bet, spec, where)
    named = spec.prompts or (spec.prompt or "",)
    tables: dict[str | None, tuple[str, ...]] = {None: (spec.rows,) if spec.rows else ()}
    if spec.rows == TRAINED_ON:
        of = {one.name: tuple(dict.fromkeys(s.rows for s in one.sets)) for one in variants(bet)}
        tables = {arm: of[arm] for arm in arms if arm != BASE}
    systems = spec.system if isinstance(spec.system, dict) else {"": spec.system}
    for prompt, (label, system), owner in itertools.product(named, systems.items(), tables):
        forms = prompts.of(prompt, f"{where}.prompts" if spec.prompts else f"{where}.prompt")
        if len(named) > 1 and prompt not in bet.prompts:
            what = "of several each needs a name: put it into 'prompts'"
            raise SettingsError(f"{where}.prompts: {what}")
        if system is not None and any(form.text is not None for form in forms):
            raise SettingsError(f"{where}.system: goes with a chat; prompt '{prompt}' is a text")
        parts = [prompt if len(named) > 1 else "", label, owner or ""]
        called = ".".join(filter(None, [name, "_".join(filter(None, parts))]))
        whom = arms if owner is None else tuple(arm for arm in arms if arm in (BASE, owner))
        yield Asking(called, name, spec, forms, system, whom, owner, tables=tables[owner])


def _arms(bet: Bet, spec: schema.Evaluation, where: str) -> tuple[str, ...]:
    """Who is asked: an entry stands for all the arms that it expands to."""
    entries = {BASE: BASE} | {one.name: one.entry for one in variants(bet)}
    known = [*entries, *entries.values(), *bet.models]
    for arm in spec.arms or ():
        if arm not in known:
            raise unknown("arm", arm, dict.fromkeys(known), f"{where}.arms")
    asked = [
        arm for arm, entry in entries.items() if spec.arms is None or {arm, entry} & {*spec.arms}
    ]
    return (*asked, *(model for model in bet.models if model in (spec.arms or ())))


def _check(bet: Bet, name: str, spec: schema.Evaluation, where: str) -> None:
    graders = graders_of(bet, name, spec)
    for grader in spec.known:
        if grader not in graders:
            raise unknown("grader of this evaluation", grader, graders, f"{where}.known")
    tables, examples = bet.table_names, spec.examples
    known = tables if spec.given is not None else [*tables, TRAINED_ON]
    if spec.rows is not None and spec.rows not in known:
        raise unknown("table", spec.rows, known, f"{where}.rows")
    if examples is not None and examples.rows not in tables:
        raise unknown("table", examples.rows, tables, f"{where}.examples.rows")
    if spec.candidates is not None and spec.answer not in (None, *spec.candidates):
        raise unknown("candidate", str(spec.answer), spec.candidates, f"{where}.answer")
    texts = {f"candidates.{label}": text for label, text in (spec.candidates or {}).items()}
    texts |= {"delimiter": spec.delimiter, "given": spec.given or ""}
    texts |= {"examples.answer": examples.answer if examples else ""}
    systems = spec.system if isinstance(spec.system, dict) else {"": spec.system}
    texts |= {f"system.{label}".rstrip("."): text or "" for label, text in systems.items()}
    for key, text in texts.items():
        check_text(text, f"{where}.{key}")


# --- queries ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asker:
    """Makes the evaluations of a bet's questions from its tables."""

    bet: Bet
    tables: Mapping[str, Sequence[Row]]
    trained: Sequence[Trained]
    tokenize: Tokenize
    seed: int

    def evaluations(self, asked: Asking) -> Iterator[Evaluation]:
        """One a draw of examples and, for training rows, a replicate.

        None of answers that were given, and none yet of those that are asked after others.
        """
        if asked.after is not None or asked.spec.given is not None:
            self._check_rows(asked, asked.asked(asked.rows(self.tables)))
            return
        base = [BASE] * (BASE in asked.arms)
        if asked.own_rows_of is None:
            models = base + [one.arm.name for one in self.trained if one.arm.arm in asked.arms]
            models += [model for model in self.bet.models if model in asked.arms]
            if models:  # none, where `each` found no rows for the arms
                yield from self._drawn(asked, asked.rows(self.tables), models)
            return
        by_id: dict[str, Row] = {}
        for row in asked.rows(self.tables):  # answers are known by these ids alone
            if by_id.setdefault(row["id"], row) != row:
                what = (
                    f"rows of {' and '.join(asked.tables)} have the same ids; give them a column id"
                )
                raise SettingsError(f"{asked.where}.rows: {what}")
        for one in self.trained:
            if one.arm.arm == asked.own_rows_of:
                own = {row["id"]: row for row in one.rows}
                models = [*base, one.arm.name]
                yield from self._drawn(asked, [*own.values()], models, one.arm.replicate)

    def _drawn(
        self, asked: Asking, rows: Sequence[Row], models: list[str], replicate: int | None = None
    ) -> Iterator[Evaluation]:
        chosen, spec = asked.asked(rows), asked.spec
        self._check(asked, chosen)
        words = f"{asked.table}, asked in {' and '.join(form.where for form in asked.forms)}"
        words += f" after {spec.examples.n} examples" if spec.examples else ""
        table = asked.tables[0] if len(asked.tables) == 1 else None
        for draw in range(1, (spec.examples.draws if spec.examples else 1) + 1):
            name = of_replicate(asked.name, replicate or 1)
            name += f"-draw-{draw}" if draw > 1 else ""
            queries: list[Any] = [
                self._query(asked, row, place, examples)
                for row, examples in zip(chosen, self._examples(asked, chosen, draw), strict=True)
                for place in range(len(asked.forms))
            ]
            said = spec.description or words
            yield Evaluation(name, asked.name, said, models, queries, replicate, draw, table)

    def _query(
        self, asked: Asking, row: Row, place: int, examples: Sequence[Row]
    ) -> ScoringQuery | GenerationQuery:
        form = asked.forms[place]
        query_id = f"{row['id']}/{place + 1}" if len(asked.forms) > 1 else row["id"]
        return self._made(asked, query_id, self._context(asked, row, form, examples), form, row)

    def _made(
        self, asked: Asking, query_id: str, context: Context, form: Form, row: Row
    ) -> ScoringQuery | GenerationQuery:
        how = asked.spec.generate
        fields: dict[str, Any] = {"id": query_id}
        fields["prompt" if isinstance(context, str) else "messages"] = context
        if form.prefill is not None:
            fields["prefill"] = form.prefilled(row)
        if how is None:
            return ScoringQuery(**fields, candidates=self._candidates(asked, row, form))
        # Equal seeds would give all rows the same luck, so that they were no independent evidence.
        seed = zlib.crc32(f"{self.seed}/{asked.name}/{query_id}".encode()) if how.temperature else 0
        fields |= {"max_tokens": how.max_tokens, "temperature": how.temperature}
        return GenerationQuery(**fields, n_samples=how.samples, seed=seed)

    def after(self, asked: Asking, answered: Asked) -> Evaluation:
        """The question put to one model after each of its answers to the one before."""
        (form,), first = asked.forms, asked.after
        assert first is not None
        by_id = {row["id"]: row for row in first.rows(self.tables)}
        queries: list[Any] = []
        for query, result in zip(answered.queries, answered.results, strict=True):
            row = by_id[first.row_of(query.id)]
            turns = form.context(row)
            assert not isinstance(turns, str)
            for sample, text in enumerate(result.texts, start=1):
                said = Message(role="assistant", content=(query.prefill or "") + text)
                query_id = f"{query.id}#{sample}" if first.samples > 1 else query.id
                context = (*(query.messages or ()), said, *turns)
                queries.append(self._made(asked, query_id, context, form, row))
        one = answered.evaluation
        name = f"{asked.name}{one.name.removeprefix(one.question)}-of-{answered.arm.name}"
        said = asked.spec.description or f"the same rows, asked on after {one.name}"
        return Evaluation(
            name, asked.name, said, [answered.arm.name], queries, one.replicate, one.draw, one.table
        )

    def _context(self, asked: Asking, row: Row, form: Form, examples: Sequence[Row]) -> Context:
        """The prompt after the examples: earlier turns, or texts set off by blank lines."""
        system = None if asked.system is None else fill(asked.system, row, f"{asked.where}.system")
        context = form.context(row, system)
        turns: list[Message] = []
        texts: list[str] = []
        told = asked.spec.examples.answer if asked.spec.examples else ""
        for one in examples:
            shown, answer = form.context(one), fill(told, one, f"{asked.where}.examples.answer")
            answer = (form.prefilled(one) or "") + form.answer(_delimiter(asked, one) + answer)
            if isinstance(shown, str):
                texts.append(shown + answer)
            else:
                turns += [turn for turn in shown if turn.role != "system"]
                turns.append(Message(role="assistant", content=answer))
        if isinstance(context, str):
            return "\n\n".join([*texts, context])
        n_system = int(context[0].role == "system")
        return (*context[:n_system], *turns, *context[n_system:])

    def _candidates(self, asked: Asking, row: Row, form: Form) -> dict[str, str]:
        """Raises SettingsError for answers that can't be told apart."""
        between, options = _delimiter(asked, row), asked.spec.options is not None
        answers = asked.answers(row)
        found = {label: form.answer(between + answer) for label, answer in answers.items()}
        seen: dict[Any, str] = {}
        for label, text in found.items():
            key = f"{asked.where}.options" if options else f"{asked.where}.candidates.{label}"
            if not (text and answers[label]):
                raise SettingsError(f"{key}: is empty in row {row['id']}")
            same = text if options else self.tokenize(text)
            if same in seen:
                what = "is the same text" if options else "has the same tokens"
                raise SettingsError(f"{key}: {what} as {seen[same]} in row {row['id']}: {text!r}")
            seen[same] = label
        return found

    def _examples(self, asked: Asking, rows: Sequence[Row], draw: int) -> Sequence[Sequence[Row]]:
        """The few-shot examples of every row in one of the draws."""
        spec = asked.spec.examples
        if spec is None:
            return [()] * len(rows)
        shown, where = list(self.tables[spec.rows]), f"{asked.where}.examples"
        beginning = first(shown, spec.n, f"{where}.n", spec.rows)
        whole = spec.rows.partition(".")[0]
        same = whole in {table.partition(".")[0] for table in asked.tables}
        if same and {row["id"] for row in rows} & {row["id"] for row in shown}:
            raise SettingsError(
                f"{where}.rows: rows that are asked could be their own examples; split {whole}, as in "
                "split: {test: 20, train: rest}"
            )
        rng = random.Random(f"few-shot/{self.seed}/{draw - 1}")
        if spec.choose == "per_row":
            return [rng.sample(shown, spec.n) for _ in rows]
        return [beginning if spec.choose == "first" else rng.sample(shown, spec.n)] * len(rows)

    def _check(self, asked: Asking, rows: Sequence[Row]) -> None:
        """Raises SettingsError for what can be wrong with the rows."""
        for form in asked.forms:
            asks = [(self._context(asked, row, form, ()), form.prefilled(row)) for row in rows]
            if len(rows) > 1 and asks.count(asks[0]) == len(rows):
                raise SettingsError(
                    f"{form.where}: is the same for all {len(rows)} rows of {asked.name}; name a "
                    "column, as in {id}"
                )
        self._check_rows(asked, rows)

    def _check_rows(self, asked: Asking, rows: Sequence[Row]) -> None:
        """Raises SettingsError for what any of them lacks."""
        grading = Grading(self.bet, asked.evaluation, self.seed)
        for row in rows:
            asked.right(row)
            for name, value in asked.known(row).items():
                least, most = quantities_of(name, grading.asked[name])[name]
                if not least <= value <= most:
                    what = (
                        f"{value:g} in row {row['id']}, and grades are from {least:g} to {most:g}"
                    )
                    raise SettingsError(f"{asked.where}.known.{name}: {what}")
            if asked.spec.given is not None:
                fill(asked.spec.given, row, f"{asked.where}.given")
            for form in asked.forms if asked.after else ():
                form.context(row)
                if asked.spec.generate is None:
                    self._candidates(asked, row, form)
            grading.check(row)


def _delimiter(asked: Asking, row: Row) -> str:
    return fill(asked.spec.delimiter, row, f"{asked.where}.delimiter")
