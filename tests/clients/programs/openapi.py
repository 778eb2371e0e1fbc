"""Validates recorded answers by OpenAI's description; prints how many, and what is not as described."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

# Of a bare `openapi.json` these have no schema of their own.
_ELSEWHERE = {"DELETE /responses/{response_id}": {"type": "object"}}


def as_json_schema(node: Any) -> Any:
    """The description with what it has left from OpenAPI 3.0 said in 3.1's words."""
    if isinstance(node, list):
        return [as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: as_json_schema(value) for key, value in node.items()}
    if node.get("exclusiveMinimum") is True:
        node["exclusiveMinimum"] = node.pop("minimum")
    if node.pop("nullable", None) is True:
        return {"anyOf": [node, {"type": "null"}]}
    return node


def main(description: str, recorded: str) -> None:
    whole = as_json_schema(json.loads(Path(description).read_text(encoding="utf-8")))
    answers = json.loads(Path(recorded).read_text(encoding="utf-8"))
    components = whole["components"]
    validated, problems = 0, []
    for answer in answers:
        path = answer["path"].removeprefix("/v1")
        streamed = " stream" if answer["kind"] == "text/event-stream" else ""
        route = f"{answer['method']} {answer['path']}{streamed}"
        schema = schema_of(whole, answer, path)
        validator = Draft202012Validator({**schema, "components": components})
        for content in answer["content"]:
            validated += 1
            error = best_match(validator.iter_errors(content))
            if error is not None:
                place = ".".join(str(part) for part in error.absolute_path)
                problems.append({"route": route, "place": place, "message": error.message[:300]})
    print(json.dumps({"validated": validated, "problems": problems}))


def schema_of(whole: dict[str, Any], answer: dict[str, Any], path: str) -> dict[str, Any]:
    if answer["status"] != 200:
        return {"$ref": "#/components/schemas/ErrorResponse"}
    fitting = [p for p in whole["paths"] if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", p), path)]
    template = min(fitting, key=lambda found: found.count("{"))
    method = answer["method"].lower()
    described = whole["paths"][template][method]["responses"]["200"].get("content", {})
    if not described:
        return _ELSEWHERE[f"{answer['method']} {template}"]
    return described[answer["kind"] if answer["kind"] in described else "application/json"][
        "schema"
    ]


main(*sys.argv[1:])
