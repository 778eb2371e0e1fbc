import openai
import pytest

from tests.server import RunningServer


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
