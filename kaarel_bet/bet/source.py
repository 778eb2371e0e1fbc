"""Loading a bet: its file, an option of each of its choices, and what is laid over it by settings."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from backends.errors import DataError, SettingsError
from backends.schema import did_you_mean
from kaarel_bet import experiments
from kaarel_bet.bet.expressions import ExpressionError
from kaarel_bet.bet.schema import Bet, BetBase, Dotted, Name, Text
from kaarel_bet.documents import Document, Keys, Place
from kaarel_bet.generators.inverse_scaling import HUB
from kaarel_bet.yaml_files import parse_value, read

BETS = Path(__file__).parents[1] / "bets"
"""The shipped ones."""

TASKS = tuple(HUB)
"""Bets that are inverse_scaling.yaml about one task each."""

Choices = dict[Name, Annotated[dict[Text, Dotted], Field(min_length=1)]]


class BetFile(Bet):
    """What a file may say: a bet, and choices between forms of it, settled before it is read further."""

    choices: Choices = Field(
        default_factory=dict,
        description="NAME: {OPTION: {dotted.path: value}}; --set BET.NAME=OPTION picks one, the first "
        "is the default.",
    )


@dataclass(frozen=True)
class Assignment:
    """A setting given on the command line."""

    keys: tuple[str, ...]
    value: Any

    place = Place("command line")

    @classmethod
    def parse(cls, text: str) -> "Assignment":
        """`key.path=value`, the value being YAML. Raises SettingsError."""
        path, equals, value = text.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or not all(keys):
            raise SettingsError(f"--set {text}: write it as key.path=value")
        try:
            return cls(keys, parse_value(value, ""))
        except SettingsError as error:
            raise SettingsError(f"--set {text}: the value is not valid YAML") from error

    @property
    def of_bet(self) -> Keys:
        """The key of a bet that follows its name. Raises SettingsError: none does."""
        name, *keys = self.keys
        if not keys:
            raise SettingsError(f"{self.place}: {name}: name a key of the bet, {name}.KEY=value")
        return tuple(keys)

    def put_into(self, document: Document, bet: Keys = ()) -> None:
        """Sets the bet's key that it names, `bet` being where the bet stands in the document.

        In the language a key that is null is one left out; what is made by code may want a null.
        """
        keys = self.of_bet
        if self.value is None and keys[0] in Bet.model_fields:
            document.remove((*bet, *keys))
        else:
            document.put((*bet, *keys), self.value, self.place)


@dataclass(frozen=True)
class LoadedBet:
    """A bet, the folder of the files it names, their SHA-256 (None: not there), and what was chosen."""

    bet: BetBase
    folder: Path
    files: Mapping[str, str | None]
    choices: Mapping[str, str]
    document: Document

    def frozen(self) -> dict[str, Any]:
        """What a run keeps of it."""
        return {
            "bet": self.bet.model_dump(mode="json", exclude_defaults=True),
            "choices": dict(self.choices),
            "files": dict(self.files),
        }

    def refuse_changed_files(self) -> None:
        """Raises DataError if a file is not as it was when these settings were frozen."""
        for file, sha256 in self.files.items():
            if _digest(self.folder, file) != sha256:
                raise DataError(
                    f"{self.folder / file}: not there, or not as it was when the run was started; "
                    "name the bet's file, or start a new run"
                )

    @contextlib.contextmanager
    def pointing(self) -> Iterator[None]:
        """Puts the place in the file before what is found wrong with it later."""
        try:
            yield
        except ExpressionError as error:
            raise self.document.error(error.key_path, error.message, error.column) from error
        except SettingsError as error:
            keys, what = self._named_in(str(error))
            if not keys:
                raise
            raise self.document.error(keys, what) from error

    def _named_in(self, message: str) -> tuple[Keys, str]:
        """The key that a message begins with, `arms.tuned.train: ...`, and the rest."""
        path, colon, what = message.partition(": ")
        keys = tuple(int(key) if key.isdecimal() else key for key in path.split("."))
        known = colon and keys[0] in self.document.data and " " not in path
        return (keys, what) if known else ((), message)


def shipped() -> dict[str, Path]:
    """Name -> file of every bet that comes with the package."""
    files = {path.stem: path for path in sorted(BETS.glob("*.yaml"))}
    return files | dict.fromkeys(TASKS, BETS / "inverse_scaling.yaml")


def find_bet(name_or_path: str) -> Path:
    """The file of a shipped bet, or the one that a path ending in .yaml or .yml names.

    Raises:
        SettingsError: there is no such bet.
    """
    if name_or_path.lower().endswith((".yaml", ".yml")):
        return Path(name_or_path)
    known = shipped()
    if name_or_path not in known:
        own = [f for f in (f"{name_or_path}.yaml", f"{name_or_path}.yml") if Path(f).is_file()]
        hint = f"did you mean '{own[0]}'?" if own else did_you_mean(name_or_path, known)
        raise SettingsError(
            f"no bet '{name_or_path}'; {hint} (one of your own is a path that ends in .yaml)"
        )
    return known[name_or_path]


def load_bet(
    name_or_path: str,
    config: Document | None = None,
    assignments: Sequence[Assignment] = (),
    reserved: Sequence[str] = (),
) -> LoadedBet:
    """The file < the options chosen < its section of `config` < `assignments`, checked against the types.

    Raises:
        SettingsError: anything that the file alone, or what was laid over it, shows to be wrong.
    """
    path = find_bet(name_or_path)
    is_shipped = path.parent == BETS
    document = read(path, path.name if is_shipped else name_or_path)
    if name_or_path in TASKS:
        document.put(("name",), name_or_path, Place(name_or_path))
        document.put(("data", "items", "task"), name_or_path, Place(name_or_path))
    name = document.data.get("name")
    if name in reserved:
        raise document.error(("name",), f"'{name}' is a key of config.yaml; choose another")
    config = config or Document("", {})
    section = {} if (found := config.data.get(str(name))) is None else found
    if not isinstance(section, dict):
        raise config.error((str(name),), "must be a mapping of the bet's keys")
    given = [one for one in assignments if one.keys[0] == name]
    chosen = _choose(document, config, section, given)
    for key, value in section.items():
        if key not in chosen:
            removes = key in Bet.model_fields  # as an assignment does
            document.merge((key,), value, config, (str(name), key), null_removes=removes)
    for one in given:
        choice, *further = one.of_bet
        if choice not in chosen:
            one.put_into(document)
        elif further:
            raise SettingsError(
                f"{one.place}: {name}.{choice} is a choice, and has no keys of its own"
            )
    return checked(document, path.parent, chosen)


def checked(document: Document, folder: Path, chosen: Mapping[str, str]) -> LoadedBet:
    """A resolved document as a bet. Raises SettingsError."""
    bet = document.validated(experiments.kind_of(document.data))
    tables = bet.data.values() if isinstance(bet, Bet) else ()
    files: dict[str, str | None] = {t.file: _digest(folder, t.file) for t in tables if t.file}
    for table in tables:  # a generator's source is a file, or where else rows come from
        source = table.parameters.get("source")
        if isinstance(source, str) and (found := _digest(folder, source)):
            files[source] = found
    return LoadedBet(bet, folder, files, chosen, document)


def _choose(
    document: Document,
    config: Document,
    section: Mapping[str, Any],
    given: Sequence[Assignment],
) -> dict[str, str]:
    """Puts the values of each choice's option in their places; choice -> the option."""
    options = document.validated(Choices, ("choices",))
    chosen: dict[str, str] = {}
    for choice, known in options.items():
        flags = [(one.place, one.value) for one in given if one.of_bet == (choice,)]
        name = str(document.data.get("name"))
        wanted = [(config.place((name, choice)), section[choice])] if choice in section else []
        place, option = [(Place(""), next(iter(known))), *wanted, *flags][-1]
        if option not in known:
            hint = did_you_mean(str(option), known)
            raise SettingsError(f"{place}: {name}.{choice}: no option '{option}'; {hint}")
        chosen[choice] = option
        for path, value in known[option].items():
            at = ("choices", choice, option, path)
            document.put(tuple(path.split(".")), value, document.place(at))
    document.remove(("choices",))
    return chosen


def _digest(folder: Path, file: str) -> str | None:
    for path in (folder / file, Path(file)):
        with contextlib.suppress(
            OSError, ValueError
        ):  # not there, or no path: said where it is read
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return None
