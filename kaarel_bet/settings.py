"""Typed settings: command line > config file > defaults; unknown keys are refused.

A settings file has a few general keys and one section for each experiment and backend, and for the
server. Only the sections of the chosen experiment and backend belong to a run.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

import backends
from backends.errors import SettingsError
from backends.schema import Strict, did_you_mean, explain
from backends.server.settings import ServerSettings
from kaarel_bet import experiments


class General(Strict):
    """The keys that stand outside the sections."""

    experiment: str = "conditional_rule"
    backend: str = "local"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    results_dir: str = "results"


SECTIONS: dict[str, type[Strict]] = {
    **experiments.SETTINGS,
    **backends.SETTINGS,
    "server": ServerSettings,
}
"""Section name -> the type of its settings."""


class Settings:
    """All settings; of the sections, a run has those of its experiment and its backend."""

    def __init__(self, general: General, sections: Mapping[str, Strict]) -> None:
        self.general = general
        self.sections = sections
        self.experiment = sections[general.experiment]
        self.backend = sections[general.backend]

    def frozen(self) -> dict[str, Any]:
        """What makes this run what it is, as plain data; where results go is not part of it."""
        general = self.general.model_dump(mode="json", exclude={"results_dir"})
        return general | {
            self.general.experiment: self.experiment.model_dump(mode="json"),
            self.general.backend: self.backend.model_dump(mode="json"),
        }


def load_settings(raw: Mapping[str, Any], *, where: str) -> Settings:
    """Checks plain data against the types.

    Raises:
        SettingsError: an unknown key, a value of the wrong type, an unknown experiment or backend.
    """
    valid = {name: field.annotation for name, field in General.model_fields.items()} | SECTIONS
    _refuse_unknown_keys(raw, valid, prefix="", where=where)
    general = _validate(General, {k: v for k, v in raw.items() if k not in SECTIONS}, "", where)
    for key, known in (("experiment", experiments.SETTINGS), ("backend", backends.SETTINGS)):
        name = getattr(general, key)
        if name not in known:
            raise SettingsError(f"{where}: {key}: no '{name}'; {did_you_mean(name, known)}")
    # Sections of other experiments and backends are checked as well: a mistake there is a mistake.
    sections = {
        name: _validate(kind, {} if raw.get(name) is None else raw[name], name, where)
        for name, kind in SECTIONS.items()
    }
    return Settings(general, sections)


def read_config(path: Path) -> dict[str, Any]:
    """The file as plain data (YAML 1.2).

    Raises:
        SettingsError: the file can't be read or is not a YAML mapping.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{line}: {getattr(error, 'problem', error)}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: must be a mapping of keys to values")
    return raw


def override(raw: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy with each `key.path=value` put in; values are read as YAML.

    Raises:
        SettingsError: an assignment without "=", or a path through something that has no keys.
    """
    result = json.loads(json.dumps(raw))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise SettingsError(f"--set {assignment}: write it as key.path=value")
        try:
            value = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise SettingsError(f"--set {assignment}: the value is not valid YAML") from error
        section = result
        for key in keys[:-1]:
            if section.get(key) is None:  # a section that the file leaves empty
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                raise SettingsError(f"--set {assignment}: '{key}' is a value, not a section")
        section[keys[-1]] = value
    return result


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ between two nested mappings."""
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}")
    return found


def _validate(kind: type[Strict], raw: object, prefix: str, where: str) -> Any:  # noqa: ANN401
    try:
        # By way of JSON, strictness knows that a list may stand for a tuple but "3" not for 3.
        return kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        inside = bool(error.errors()[0]["loc"])
        joint = ("." if inside else ": ") if prefix else ""
        raise SettingsError(f"{where}: {prefix}{joint}{explain(error)}") from error
    except TypeError as error:
        raise SettingsError(f"{where}: {prefix or 'file'}: {error}") from error
    except ValueError as error:  # by an alias of YAML; JSON has no way to write it
        raise SettingsError(f"{where}: {prefix or 'file'}: a value contains itself") from error


def _refuse_unknown_keys(
    raw: Mapping[str, Any], valid: Mapping[str, Any], *, prefix: str, where: str
) -> None:
    for key, value in raw.items():
        if key not in valid:
            hint = did_you_mean(str(key), valid)
            hint = hint.replace("did you mean '", f"did you mean '{prefix}")
            raise SettingsError(f"{where}: unknown key '{prefix}{key}'; {hint}")
        section = _section_type(valid[key])
        if section is not None and isinstance(value, Mapping):
            fields = {name: field.annotation for name, field in section.model_fields.items()}
            _refuse_unknown_keys(value, fields, prefix=f"{prefix}{key}.", where=where)


def _section_type(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
