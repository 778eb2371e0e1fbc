"""Typed settings: command line > the bet's own > config file > defaults; unknown keys are refused.

A settings file has a few general keys, one section for each backend and for the server, and sections that
override keys of the bets that they are named after. A run has the bet and the chosen backend's section.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

import backends
from backends.errors import SettingsError
from backends.schema import Strict, did_you_mean
from backends.server.settings import ServerSettings
from kaarel_bet import executors
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.source import Assignment, LoadedBet, checked, load_bet, shipped
from kaarel_bet.documents import Document, Keys, Place


class General(Strict):
    """The keys that stand outside the sections."""

    experiment: str = "conditional_rule"
    backend: str = "local"
    executor: str = "local"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    results_dir: str = "results"


SECTIONS: dict[str, type[Strict]] = {
    **backends.SETTINGS,
    **executors.SETTINGS,
    "server": ServerSettings,
}
"""Section name -> the type of its settings."""

_OF_RUNS = ("bet", "choices", "files")
"""Further keys of a run's frozen settings."""

RESERVED = (*General.model_fields, *SECTIONS, *_OF_RUNS)
"""What a bet can't be called."""


class Settings:
    """All settings; of the sections, a run has its bet's and its backend's."""

    def __init__(
        self,
        general: General,
        sections: Mapping[str, Strict],
        loaded: LoadedBet,
        document: Document,
    ) -> None:
        self.general = general
        self.sections = sections
        self.loaded = loaded
        self.bet = loaded.bet
        self.backend = sections[general.backend]
        self._document = document

    def frozen(self) -> dict[str, Any]:
        """What makes this run what it is, as plain data; where it is done and kept is not part of it."""
        general = self.general.model_dump(mode="json", exclude={"results_dir", "executor"})
        section = {self.general.backend: self.backend.model_dump(mode="json")}
        return general | {"experiment": self.bet.name} | self.loaded.frozen() | section

    def backend_with(self, own: Mapping[str, Any], arm: str) -> Strict:
        """The chosen backend's settings with an arm's own over them.

        Raises:
            SettingsError: one of them is no setting of a backend.
        """
        document = self._document.copy()
        place = self.loaded.document.place(("arms", arm, "settings"))
        _put_dotted(document, own, Place(f"{place}: arms.{arm}.settings"))
        for name in {path.partition(".")[0] for path in own}:
            document.validated(SECTIONS[name], (name,))
        name = self.general.backend
        return document.validated(SECTIONS[name], (name,))


def load_settings(
    raw: Mapping[str, Any] | Document, assignments: Sequence[str] = (), *, where: str = "settings"
) -> Settings:
    """A settings file's content, with assignments of --set over it, checked against the types.

    Raises:
        SettingsError: an unknown key, a value of the wrong type, an unknown bet or backend.
    """
    config = raw if isinstance(raw, Document) else Document(where, raw)
    given = [Assignment.parse(text) for text in assignments]
    document = config.copy()
    _put_all(document, given)
    general = _general(document)
    loaded = load_bet(general.experiment, config, given, RESERVED)
    bets = {*shipped(), loaded.bet.name}
    for key in document.data:
        if key not in (known := {*General.model_fields, *SECTIONS, *bets}):
            place = document.place((key,))
            raise SettingsError(f"{place}: unknown key '{key}'; {did_you_mean(str(key), known)}")
    # Sections of other bets and backends are checked as well: a mistake there is a mistake.
    for name in bets & document.data.keys() - {loaded.bet.name}:
        load_bet(name, config, given)
    own = loaded.bet.settings
    _put_dotted(document, own, Place(f"{loaded.document.place(('settings',))}: settings"))
    _put_all(document, given)
    sections = {name: document.validated(kind, (name,)) for name, kind in SECTIONS.items()}
    settings = Settings(general, sections, loaded, document)
    if isinstance(loaded.bet, Bet):
        for name, arm in loaded.bet.arms.items():
            settings.backend_with(arm.settings, name)
    return settings


def executor_settings(document: Document, assignments: Sequence[str] = ()) -> Strict | None:
    """Those of the executor that is chosen, None for this machine; of a run they are those of the day.

    Raises:
        SettingsError: there is no such executor, it is not installed, or its settings don't fit.
    """
    chosen = document.copy()
    of_executors = ("executor", *executors.SETTINGS)
    given = [Assignment.parse(text) for text in assignments]
    _put_all(chosen, [one for one in given if one.keys[0] in of_executors])
    name = _general(chosen).executor
    executors.check(name)
    return None if name == executors.LOCAL else chosen.validated(executors.SETTINGS[name], (name,))


def load_frozen(frozen: Document, folder: Path, assignments: Sequence[str] = ()) -> Settings:
    """A run's own settings, which need nothing else to be there, with assignments over them.

    Raises:
        SettingsError: they are not a run's, or can't be overridden like that.
    """
    document = frozen.copy()
    name = str(document.data.get("experiment"))
    choices = document.data.get("choices") or {}
    for one in map(Assignment.parse, assignments):
        if one.keys[0] != name:
            document.put(one.keys, one.value, one.place)
        elif one.of_bet[0] in choices:
            document.put(("choices", *one.of_bet), one.value, one.place)
        else:
            one.put_into(document, ("bet",))
    general = _general(document)
    bet = Document(
        frozen.name, cast("dict[str, Any]", document.get(("bet",))) or {}, _within(document)
    )
    loaded = checked(bet, folder, choices)
    loaded = LoadedBet(loaded.bet, folder, document.data.get("files") or {}, choices, bet)
    sections = {name: document.validated(kind, (name,)) for name, kind in SECTIONS.items()}
    return Settings(general, sections, loaded, document)


def _within(document: Document) -> dict[Keys, Place]:
    return {keys[1:]: place for keys, place in document.places.items() if keys[:1] == ("bet",)}


def _general(document: Document) -> General:
    general = {key: v for key, v in document.data.items() if key in General.model_fields}
    found = Document(document.name, general, document.places).validated(General)
    if found.backend not in backends.SETTINGS:
        hint = did_you_mean(found.backend, backends.SETTINGS)
        raise document.error(("backend",), f"no '{found.backend}'; {hint}")
    return found


def _put_all(document: Document, given: Sequence[Assignment]) -> None:
    for one in given:
        if one.keys[0] in (*General.model_fields, *SECTIONS):
            document.put(one.keys, one.value, one.place)
        else:  # a bet's, or unknown
            document.data.setdefault(one.keys[0], None)
            document.places.setdefault(one.keys[:1], one.place)


def _put_dotted(document: Document, own: Mapping[str, Any], place: Place) -> None:
    for path, value in own.items():
        keys = tuple(path.split("."))
        section = path.partition(".")[0]
        if section not in backends.SETTINGS or len(keys) == 1:
            hint = did_you_mean(section, backends.SETTINGS)
            raise SettingsError(f"{place}: '{path}' is no setting of a backend; {hint}")
        document.put(keys, value, place)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ between two nested mappings."""
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(key), theirs.get(key)
        if all(isinstance(side or {}, Mapping) for side in (left, right)) and (left or right):
            found += differences(left or {}, right or {}, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}")
    return found
