"""docs/bets.md explains the language that there is."""

import json
import re
from pathlib import Path
from typing import Any

from kaarel_bet.bet.source import BETS

_DOCS = Path(__file__).parents[3] / "docs" / "bets.md"


def keys() -> set[str]:
    """Every key of the language."""
    schema = json.loads((BETS / "bet.schema.json").read_text(encoding="utf-8"))
    of_backends = {"LocalModel", "HostedModel"}  # config.yaml explains what they have
    objects = [schema, *_reached(schema, schema, of_backends)]
    return {key for one in objects for key in one.get("properties", {})}


def _reached(node: Any, schema: Any, but: set[str]) -> list[Any]:
    """Every definition that is referred to from a node, but for what only some are."""
    found: dict[str, Any] = {}
    waiting = [node["properties"]]
    while waiting:
        for name in re.findall(r"#/\$defs/(\w+)", json.dumps(waiting.pop())):
            if name not in found and name not in but:
                found[name] = schema["$defs"][name]
                waiting.append(found[name])
    return [*found.values()]


def test_every_key_is_explained() -> None:
    words = set(re.findall(r"\w+", _DOCS.read_text(encoding="utf-8")))
    of_messages = {"role", "content", "weight"}  # OpenAI's format
    assert not keys() - words - of_messages
    assert len(keys()) > 80
