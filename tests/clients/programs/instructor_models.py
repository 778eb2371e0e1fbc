"""instructor in the modes that the arguments name."""

import json
import sys
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Colour(BaseModel, extra="forbid"):
    name: Literal["red", "green"]


def extracted(mode: str) -> str:
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode[mode])
    asked = [{"role": "user", "content": "The apple is red. Which colour?"}]
    found = client.chat.completions.create(
        model="gpt-4.1-2025-04-14",
        response_model=Colour,
        messages=asked,
        max_tokens=60,
        temperature=0,
        max_retries=0,
    )
    return found.name


print(json.dumps({mode: extracted(mode) for mode in sys.argv[1:]}))
