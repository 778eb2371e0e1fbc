"""llm: a prompt with a schema, and a conversation."""

import json

import llm

model = llm.get_model("gpt-4.1")
held = model.prompt(
    "A dog, please.",
    schema={
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}},
        "required": ["name"],
        "additionalProperties": False,
    },
    stream=False,
)
conversation = model.conversation()
first = conversation.prompt("Say hello.", max_tokens=10).text()
second = conversation.prompt(
    "And again.", max_tokens=10, frequency_penalty=0.5, presence_penalty=0.5
).text()
print(json.dumps({"held": json.loads(held.text()), "said": [first, second]}))
