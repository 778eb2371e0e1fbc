"""docs/bets.md explains the language that there is."""

import json
import re
from pathlib import Path

from kaarel_bet.bet.source import BETS

_DOCS = Path(__file__).parents[3] / "docs" / "bets.md"


def keys() -> set[str]:
    """Every key of the language."""
    schema = json.loads((BETS / "bet.schema.json").read_text(encoding="utf-8"))
    objects = [schema, *schema["$defs"].values()]
    return {key for one in objects for key in one.get("properties", {})}


def test_every_key_is_explained() -> None:
    words = set(re.findall(r"\w+", _DOCS.read_text(encoding="utf-8")))
    of_messages = {"role", "content", "weight"}  # OpenAI's format
    assert not keys() - words - of_messages
    assert len(keys()) > 80
