"""The JSON Schema that editors complete a bet's file from.

python -m kaarel_bet.bet.schema_file    writes it anew from the types
"""

import json

from backends.atomic import write_text
from kaarel_bet.bet.source import BETS, BetFile

SCHEMA = BETS / "bet.schema.json"


def as_text() -> str:
    """What the file should hold."""
    schema = BetFile.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, as_text())
