from collections.abc import Callable

import httpx2
import pytest

from backends.openai_api.connection import Connection
from backends.openai_api.settings import OpenAISettings
from tests.backends.openai_api.toy_service import ROOT, ToyService

Connect = Callable[[ToyService], Connection]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A connection to a toy service, by the real client."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    def connect(service: ToyService) -> Connection:
        client = httpx2.AsyncClient(transport=service.transport())
        return Connection(OpenAISettings(base_url=f"{ROOT}/v1"), client)

    return connect
