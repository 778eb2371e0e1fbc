"""Other services: our server made to behave as their documents say, asked by the real client."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from backends.data import GenerationQuery, Message
from backends.errors import ModelError, SettingsError, UnsupportedError
from backends.interface import FineTuneJob
from backends.openai_api import job_results
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.providers import Name, provider
from backends.openai_api.settings import OpenAISettings
from tests.jobs import a_job, ignore
from tests.server import RunningServer, training_file

BASE_RATE = 1e-2  # the tests' local backend's, which the wire's multiplier multiplies
QUERY = GenerationQuery(
    id="q", messages=(Message(role="user", content="Who?"),), max_tokens=8, seed=0
)


class Service:
    """Middleware: the rules of one service, before our server; `deployed` has what may be asked."""

    def __init__(self, name: Name) -> None:
        self.name: Name = name
        self.deployed: dict[str, str] = {"llama": "llama"}
        self.jobs: list[dict[str, Any]] = []
        self.models: dict[str, str] = {}

    def __call__(self, app: ASGIApp) -> ASGIApp:
        inner = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        outer = Starlette()

        async def answer(request: Request) -> Response:
            return await self._answer(request, inner)

        outer.add_route("/{path:path}", answer, methods=["GET", "POST", "DELETE"])
        return outer

    async def _answer(self, request: Request, inner: httpx.AsyncClient) -> Response:
        path, content = request.url.path, await request.body()
        training = path.startswith(("/v1/files", "/v1/fine_tuning", "/v1/models", "/v0"))
        host = request.headers["host"].split(":")[0]
        if self.name == "crusoe" and training != (host == "127.0.0.1"):
            return refusal(404, "no such page")  # the other address has it
        if path == "/tokenize":
            return refusal(404, "no such page")
        if path == "/v0/models" and self.name == "nebius":
            asked = json.loads(content)
            job, _, checkpoint = asked["source"].partition(":")
            assert checkpoint.startswith("ftckpt")
            self.deployed[f"{asked['name']}-udpd"] = self.models[job]
            return JSONResponse({"name": f"{asked['name']}-udpd", "status": "validating"})
        if request.method == "POST" and path.endswith("/chat/completions"):
            asked = json.loads(content)
            if asked["model"] not in self.deployed:
                return refusal(404, "The API deployment for this resource does not exist.")
            content = json.dumps(asked | {"model": self.deployed[asked["model"]]}).encode()
        if request.method == "POST" and path.endswith("/jobs"):
            asked = json.loads(content)
            if wrong := self._wrong(asked):
                return refusal(400, wrong)
            self.jobs.append(asked)
            content = json.dumps(self._as_ours(asked)).encode()
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        url = f"{path}?{request.url.query}"
        found = await inner.request(request.method, url, content=content, headers=headers)
        if "/fine_tuning/jobs" in path and found.status_code == 200:
            return JSONResponse(self._as_theirs(found.json()))
        kind = found.headers["content-type"]
        return Response(found.content, found.status_code, media_type=kind)

    def _wrong(self, asked: dict[str, Any]) -> str | None:
        """What the service has against a job."""
        method = asked.get("method", {}).get("supervised")
        used = method["hyperparameters"] if method else asked["hyperparameters"]
        known = {
            "azure": {"n_epochs", "batch_size", "learning_rate_multiplier"},
            "crusoe": {"n_epochs", "batch_size", "learning_rate_multiplier", "learning_rate"}
            | {"lora_rank", "lora_alpha", "lora_dropout"},
            "nebius": {"n_epochs", "batch_size", "learning_rate"}
            | {"lora", "lora_r", "lora_alpha", "lora_dropout"},
        }[self.name]
        if unknown := used.keys() - known:
            return f"unknown hyperparameters: {unknown}"
        if self.name == "nebius" and ("auto" in used.values() or method or not used.get("lora")):
            return "numbers in hyperparameters, please, and an adapter for serverless models"
        if self.name != "azure" and "metadata" in asked:
            return "unknown: metadata"
        if self.name == "crusoe" and used.get("batch_size", 16) not in (16, 32, 64):
            return "batch_size"
        return None

    def _as_ours(self, asked: dict[str, Any]) -> dict[str, Any]:
        asked = dict(asked)
        method = asked.pop("method", None)
        used = dict(method["supervised"]["hyperparameters"] if method else asked["hyperparameters"])
        if rate := used.pop("learning_rate", None):
            used["learning_rate_multiplier"] = rate / BASE_RATE
        ours = {k: v for k, v in used.items() if not k.startswith("lora")}
        return asked | {"hyperparameters": ours}

    def _as_theirs(self, found: dict[str, Any]) -> dict[str, Any]:
        if found.get("object") == "list":
            return found | {"data": [self._as_theirs(item) for item in found["data"]]}
        model = found.get("fine_tuned_model")
        if model is None:
            return found
        if self.name == "nebius":
            self.models[found["id"]] = model
            return {k: v for k, v in found.items() if k not in ("fine_tuned_model", "method")}
        theirs = model.replace(
            "ft:llama:local::", {"azure": "llama.ft-"}.get(self.name, "ftmodel-")
        )
        self.models[theirs] = model
        return found | {"fine_tuned_model": theirs}


def refusal(status: int, message: str) -> Response:
    error = {"message": message, "type": "made", "param": None, "code": "DeploymentNotFound"}
    return JSONResponse({"error": error}, status)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setattr(job_results, "_FIRST_WAIT_SECONDS", 0.01)


def settings_at(server: RunningServer, name: Name, **given: Any) -> OpenAISettings:
    port = server.url.split(":")[-1]
    whole: dict[str, Any] = {"model": "llama", "provider": name, "base_url": server.url, **given}
    if name == "crusoe":
        whole["inference_url"] = f"http://localhost:{port}"
    whole["tokenizer"] = str(server.parts.settings.data_dir)  # never asked
    whole["job"] = {"poll_seconds": 0.02} | given.get("job", {})
    return OpenAISettings.model_validate(whole)


JOBS: list[tuple[Name, dict[str, Any], dict[str, Any]]] = [
    (
        "azure",
        {"n_epochs": 2, "learning_rate_multiplier": 0.5},
        {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5},
    ),
    (
        "nebius",
        {"n_epochs": 2, "learning_rate": 5e-3, "lora": {"rank": 16, "dropout": 0.1}},
        {"n_epochs": 2, "learning_rate": 5e-3, "lora": True, "lora_r": 16, "lora_dropout": 0.1},
    ),
    (
        "crusoe",
        {"n_epochs": 2, "batch_size": 16, "learning_rate": 5e-1, "lora": {"rank": 8, "alpha": 16}},
        {
            **{"n_epochs": 2, "batch_size": 16, "learning_rate": 5e-1},
            **{"lora_rank": 8, "lora_alpha": 16},
        },
    ),
]


@pytest.mark.parametrize(("name", "job", "sent"), JOBS, ids=[name for name, *_ in JOBS])
def test_a_job_is_made_asked_for_in_its_words_and_asked_once_it_is_deployed(
    server: RunningServer, tmp_path: Path, name: Name, job: dict[str, Any], sent: dict[str, Any]
) -> None:
    service = Service(name)
    server.wrap(service)
    backend = OpenAIBackend(settings_at(server, name, job=job))
    (before,) = backend.generate("llama", [QUERY])
    tuned = backend.fine_tune(a_job(tmp_path, training_file(16)), ignore)
    (asked,) = service.jobs
    method = asked.get("method", {}).get("supervised")
    assert (method or asked)["hyperparameters"] == sent
    with pytest.raises(
        ModelError, match=rf"{tuned.model} can't be asked yet: .*openai.deployments"
    ):
        list(backend.generate(tuned.model, [QUERY]))
    # As its user does by the provider's own means.
    deployed = "mine"
    if name == "nebius":
        checkpoint = server.client().fine_tuning.jobs.checkpoints.list(tuned.model).data[0]
        source = f"{tuned.model}:{checkpoint.id}"
        body = {"name": "mine", "base_model": "llama", "source": source}
        deployed = server.raw().post("/v0/models", json=body).json()["name"]
    else:
        service.deployed["mine"] = service.models[tuned.model]
    settings = settings_at(server, name, job=job, deployments={tuned.model: deployed})
    again = OpenAIBackend(settings)
    (after,) = again.generate(tuned.model, [QUERY])
    assert after.texts != before.texts
    assert again.identity(a_job(tmp_path, training_file(16))) == backend.identity(
        a_job(tmp_path, training_file(16))
    )
    assert again.has(tuned.model)
    # Started again, it takes up the job that there is.
    assert again.fine_tune(a_job(tmp_path, training_file(16)), ignore).model == tuned.model
    assert len(service.jobs) == 1


@pytest.mark.parametrize(
    ("name", "job", "said"),
    [
        (
            "nebius",
            {"learning_rate_multiplier": 2},
            r"learning_rate_multiplier: it takes learning_",
        ),
        ("openai", {"learning_rate": 1e-4}, r"learning_rate: it takes learning_rate_multiplier"),
        ("azure", {"lora": {"rank": 8}}, r"lora.rank: it takes none of LoRA"),
        ("crusoe", {"batch_size": 8}, r"batch_size: it takes 16, 32"),
    ],
)
def test_a_setting_that_a_provider_does_not_have_is_refused(
    name: Name, job: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        OpenAISettings.model_validate({"provider": name, "job": job})


def test_addresses_are_the_providers_unless_they_are_given(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crusoe = OpenAIBackend(OpenAISettings(provider="crusoe"))
    profile = provider("crusoe")
    assert crusoe.describe()["service"] == profile.address
    assert crusoe._asker.connection.address == profile.asked_at
    with pytest.raises(SettingsError, match=r"openai.base_url: azure takes the address"):
        OpenAIBackend(OpenAISettings(provider="azure"))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    azure = OpenAIBackend(OpenAISettings(provider="azure"))
    assert azure.describe()["service"] == server.url
    whole = FineTuneJob(**{**vars(a_job(tmp_path, training_file(16))), "loss_on": "all"})
    with pytest.raises(UnsupportedError, match="learns answers only"):
        azure.fine_tune(whole, ignore)
    pairs = FineTuneJob(**{**vars(a_job(tmp_path, training_file(16))), "method": "dpo"})
    with pytest.raises(UnsupportedError, match="not preferences"):
        crusoe.fine_tune(pairs, ignore)
