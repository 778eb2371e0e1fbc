import re

import openai
import pytest

from backends.errors import SettingsError
from tests.server import RunningServer, StartServer


def test_the_base_model_is_there_from_the_start(server: RunningServer) -> None:
    (model,) = server.client().models.list()
    assert model.id == "llama"
    assert server.client().models.retrieve("llama") == model


def test_a_path_is_told_to_nobody(server: RunningServer) -> None:
    answer = server.raw().get("/v1/models").text
    assert "/" not in answer


def test_a_tuned_model_is_deleted_with_its_weights(server: RunningServer) -> None:
    client = server.client()
    job = server.fine_tune()
    assert job.fine_tuned_model is not None
    weights = server.parts.data.adapter(job.id)
    assert weights.is_dir()
    assert client.models.delete(job.fine_tuned_model).deleted
    assert not weights.exists()
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(job.fine_tuned_model)
    assert caught.value.code == "model_not_found"
    assert len(client.models.list().data) == 1


def test_the_base_model_stays(server: RunningServer) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        server.client().models.delete("llama")


@pytest.mark.parametrize("name", ["gpt-4.1", "org/model", "../llama", "/etc", "file:///etc", "ft:"])
def test_other_names_are_not_models(server: RunningServer, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.client().models.retrieve(name)
    assert caught.value.code in ("model_not_found", None)


ALIASES = {"gpt-4.1-2025-04-14": "self", "gpt-4.1-mini*": "self", "gpt-[!4]*": "self"}


def test_an_alias_is_the_base_model_by_the_name_that_was_asked_for(
    start_server: StartServer,
) -> None:
    client = start_server(aliases=ALIASES).client()
    assert [model.id for model in client.models.list()] == ["llama", "gpt-4.1-2025-04-14"]
    texts = set()
    for name in ("llama", "gpt-4.1-2025-04-14", "gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", "gpt-5"):
        assert client.models.retrieve(name).id == name
        chat = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=4, temperature=0
        )
        text = client.completions.create(model=name, prompt="Hi", max_tokens=1, temperature=0)
        assert chat.model == text.model == name
        texts.add((chat.choices[0].message.content, text.choices[0].text))
    assert len(texts) == 1
    for name in ("gpt-4.1", "GPT-4.1-MINI", "gpt-4o"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)
    for name in ("gpt-4.1-2025-04-14", "gpt-4.1-mini"):
        with pytest.raises(openai.PermissionDeniedError):
            client.models.delete(name)


def test_a_job_with_an_alias_names_its_model_after_it(start_server: StartServer) -> None:
    server = start_server(aliases=ALIASES)
    first = server.fine_tune(model="gpt-4.1-mini-2025-04-14", suffix="facts")
    assert first.model == "gpt-4.1-mini-2025-04-14"
    assert first.fine_tuned_model is not None
    assert first.fine_tuned_model.startswith("ft:gpt-4.1-mini-2025-04-14:local:facts:")
    second = server.fine_tune(model=first.fine_tuned_model)
    assert second.fine_tuned_model is not None
    assert second.fine_tuned_model.startswith("ft:gpt-4.1-mini-2025-04-14:local::")
    server.stop()
    # A name of the hosted service can stand for a model tuned here, and is then that model.
    hosted = "ft:gpt-4.1:acme::abc"
    server = start_server(aliases={hosted: first.fine_tuned_model, "*": "self"})
    models = server.parts.models
    assert models.adapter(hosted) == models.adapter(first.fine_tuned_model) == first.id
    third = server.fine_tune(model=hosted)
    assert third.fine_tuned_model is not None
    assert third.fine_tuned_model.startswith("ft:gpt-4.1:local::")
    assert server.client().models.retrieve("anything").id == "anything"
    # What was deleted is not silently the base model.
    server.client().models.delete(first.fine_tuned_model)
    for name in (first.fine_tuned_model, hosted):
        with pytest.raises(openai.NotFoundError):
            server.client().completions.create(model=name, prompt="Hi", max_tokens=1)


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ({"gpt-4": "base"}, "server.aliases.gpt-4: no model 'base' was tuned here; give self"),
        ({"gpt-4": "ft:llama:local::abc"}, "no model 'ft:llama:local::abc' was tuned here"),
        ({"llama": "self"}, "server.aliases.llama: it is the base model's own name"),
    ],
)
def test_an_alias_that_stands_for_nothing_is_refused(
    start_server: StartServer, aliases: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        start_server(aliases=aliases)
