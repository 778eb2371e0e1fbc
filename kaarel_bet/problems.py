"""What is wrong with plain data that should fit a type, said so that it can be mended."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Keys = tuple[str | int, ...]


def unknown_keys(value: object, *annotations: object) -> Iterator[tuple[Keys, list[str]]]:
    """The keys in plain data that none of the types has, and those that there are beside them."""
    shapes = [shape for annotation in annotations for shape in _alternatives(annotation)]
    if isinstance(value, list):
        items = [get_args(s)[0] for s in shapes if get_origin(s) in (tuple, list) and get_args(s)]
        inner_values = [(place, item, items) for place, item in enumerate(value)]
    elif isinstance(value, Mapping):
        models = [s for s in shapes if isinstance(s, type) and issubclass(s, BaseModel)]
        values = [get_args(s)[1] for s in shapes if get_origin(s) is dict]
        inner_values = []
        for key, item in value.items():
            fields = [m.model_fields[key].annotation for m in models if key in m.model_fields]
            is_open = (
                values or not models or any(m.model_config.get("extra") == "allow" for m in models)
            )
            if not fields and not is_open:
                yield (key,), sorted({field for model in models for field in model.model_fields})
            inner_values.append((key, item, [*fields, *values]))
    else:
        return
    for key, item, inside in inner_values:
        for keys, known in unknown_keys(item, *inside):
            yield (key, *keys), known


def _alternatives(annotation: object) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [shape for part in get_args(annotation) for shape in _alternatives(part)]
    return [annotation]


_IN_YAML = {
    "a valid tuple": "a list",
    "a valid array": "a list",
    "an object": "a mapping",
    "a valid dictionary": "a mapping",
}


def most_helpful(error: ValidationError, data: object) -> tuple[Keys, str]:
    """The problem that says most, of all that pydantic has for every branch of a union, and its place.

    A branch that has not even the keys was not meant. Of the others the deepest problem counts, and
    before a value of the wrong kind one that only lacks something.
    """
    problems: list[Any] = error.errors(include_url=False)
    strangers = [p["loc"][:-1] for p in problems if p["type"] == "extra_forbidden"]
    meant = [p for p in problems if not any(p["loc"][: len(loc)] == loc for loc in strangers)]

    def rank(problem: Any) -> tuple[int, int]:  # noqa: ANN401
        kind = problem["type"]
        wrong_kind = kind.endswith("_type") and isinstance(problem["input"], dict | list)
        return len(_real(problem["loc"], data)), 0 if wrong_kind else 1 if kind == "missing" else 2

    best = max(meant or problems, key=rank)
    keys = _real(best["loc"], data)
    what = best["msg"].removeprefix("Value error, ").replace("Input should", "should")
    for pydantics, ours in _IN_YAML.items():
        what = what.replace(pydantics, ours)
    if best["type"] == "missing":
        return (*keys, best["loc"][-1]), "is missing"
    if (there := _at(data, keys)) is None:
        return keys, "is empty"
    if isinstance(there, dict) and list(there.values()) == [None]:
        return keys, f'a text that begins with a brace wants quotes: "{{{next(iter(there))}}}"'
    if best["type"] not in ("value_error", "json_invalid"):
        got = repr(best["input"])
        what += f" (got {got if len(got) <= 40 else got[:37] + '...'})"
    return keys, what


def _at(data: Any, keys: Keys) -> Any:  # noqa: ANN401
    for key in keys:
        data = data[key]
    return data


def _real(loc: Keys, data: Any) -> Keys:  # noqa: ANN401
    """A place as pydantic names it without the names of the branches that it tried."""
    keys: list[str | int] = []
    key: Any
    for key in loc:
        is_item = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if is_item or (isinstance(data, dict) and key in data):
            data = data[key]
            keys.append(key)
    return tuple(keys)
