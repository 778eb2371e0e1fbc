"""Requests for completions, sent at the pace that the service allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal

import httpx2
import openai

from backends.data import Message
from backends.openai_api.answers import AnswerKind, ChatAnswer, TextAnswer, read
from backends.openai_api.availability import may_have
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import TRANSIENT, Kind, retry_after
from backends.openai_api.models import base_name, is_tuned
from backends.openai_api.pace import Pace

Path = Literal["/chat/completions", "/completions"]


@dataclass(frozen=True)
class Request(Generic[AnswerKind]):
    """A request and the kind of its answer."""

    path: Path
    body: Mapping[str, Any]
    answer: type[AnswerKind]

    @classmethod
    def chat(cls, body: Mapping[str, Any]) -> "Request[ChatAnswer]":
        """To `/chat/completions`."""
        return Request("/chat/completions", body, ChatAnswer)

    @classmethod
    def text(cls, body: Mapping[str, Any]) -> "Request[TextAnswer]":
        """To `/completions`."""
        return Request("/completions", body, TextAnswer)


def on_the_wire(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A chat as requests have it; weights are for training alone."""
    return [{"role": message.role, "content": message.content} for message in messages]


class Asker:
    """Sends requests over one connection."""

    def __init__(self, connection: Connection, concurrency: int) -> None:
        self.connection = connection
        self._pace = Pace(concurrency)
        self._answered: set[str] = set()

    async def ask(self, what: str, request: Request[AnswerKind]) -> AnswerKind:
        """The answer; `what` is what is being done, for messages.

        Raises:
            ModelError: the service does not have the model.
            ServiceError: it refuses, keeps failing, or answers something else.
        """
        model = request.body["model"]
        try:
            answer = await self.connection.tried(what, lambda: self._send(request))
        except RequestFailed as error:
            if error.failure.kind is not Kind.NOT_FOUND or not await self._may_come(model):
                raise error.failure.as_error(what, model) from error.__cause__
            answer = await self.connection.call(
                what,
                lambda: self._send(request),
                transient=TRANSIENT | {Kind.NOT_FOUND},
                model=model,
            )
        self._answered.add(model)
        return answer

    async def _may_come(self, model: str) -> bool:
        """Whether a model that is not found may have been made just now: a service may be slow to have it.

        One that the service does not list beside its base is gone; not every service lists any.
        """
        if not is_tuned(model) or model in self._answered:
            return False
        return await may_have(self.connection, model, base_name(model))

    async def is_refused(self, what: str, request: Request[AnswerKind]) -> bool:
        """Whether the service says that it can't do such a request, or has no such endpoint.

        Raises:
            ServiceError: it refuses for another reason, or keeps failing.
        """

        async def attempt() -> bool:
            try:
                await self._send(request)
            except openai.APIStatusError as error:
                if error.status_code not in (400, 404, 405, 422, 501):
                    raise
                return True
            return False

        return await self.connection.call(what, attempt)

    async def _send(self, request: Request[AnswerKind]) -> AnswerKind:
        await self._pace.turn()
        try:
            response = await self.connection.client.post(
                request.path, cast_to=httpx2.Response, body=request.body
            )
        except openai.RateLimitError as error:
            self._pace.learn(error.response.headers, None)
            self._pace.hold(retry_after(error.response.headers) or 0.0)
            raise
        answer = read(request.answer, response.content)
        self._pace.learn(response.headers, answer.usage and answer.usage.total_tokens)
        return answer
