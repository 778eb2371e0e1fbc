"""litellm: a chat, a stream, a schema, responses."""

import json

import litellm
from pydantic import BaseModel


class Colour(BaseModel):
    name: str


MODEL = "openai/gpt-4.1-2025-04-14"
asked = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 40,
    "temperature": 0,
}
chat = litellm.completion(**asked, logprobs=True, top_logprobs=2)
stream = "".join(
    chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)
)
held = litellm.completion(**asked, response_format=Colour)
first = litellm.responses(model=MODEL, input="Say hello.", max_output_tokens=20)
second = litellm.responses(
    model=MODEL, input="Again.", max_output_tokens=20, previous_response_id=first.id
)
events = [
    event.type
    for event in litellm.responses(
        model=MODEL, input="Say hello.", max_output_tokens=20, stream=True
    )
]
print(
    json.dumps(
        {
            "said": chat.choices[0].message.content,
            "streamed": stream,
            "logprobs": len(chat.choices[0].logprobs.content),
            "held": json.loads(held.choices[0].message.content),
            "responses": [first.output[0].content[0].text, second.output[0].content[0].text],
            "events": events[0 :: len(events) - 1],
        }
    )
)
