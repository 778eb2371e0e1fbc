import json
import threading
from typing import Any

import openai
import pytest

from backends.data import TunedModel
from backends.errors import DeviceMemoryError
from backends.local.training_process import Report, TrainingOrder, train_here
from tests.server import RunningServer, StartServer, training_file, until


def messages(server: RunningServer, job_id: str) -> list[str]:
    """What happened to a job, oldest first."""
    events = server.client().fine_tuning.jobs.list_events(job_id, limit=2)
    return [event.message for event in events][::-1]


def test_a_file_becomes_a_model(server: RunningServer) -> None:
    client = server.client()
    file = server.upload()
    job = server.fine_tune(training_file=file.id, suffix="facts", metadata={"run_id": "7"})
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("ft:llama:local:facts:")
    assert job.model == "llama"
    assert job.metadata == {"run_id": "7"}
    assert job.trained_tokens
    assert job.finished_at
    assert job.estimated_finish is None
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "local"
    told = messages(server, job.id)
    assert told[0] == f"Created fine-tuning job: {job.id}"
    assert any(message.startswith("Step 2/2: training loss=") for message in told)
    assert told[-1] == "The job has successfully completed"
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert checkpoint.step_number == 2
    table = client.files.content(job.result_files[0]).text.splitlines()
    assert table[0].startswith("step,train_loss,")
    assert [line.split(",")[0] for line in table[1:]] == ["1", "2"]


def test_auto_resolves_to_numbers(server: RunningServer) -> None:
    job = server.fine_tune(
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}},
        }
    )
    assert job.hyperparameters.n_epochs == 2
    assert job.hyperparameters.batch_size == 5
    assert job.hyperparameters.learning_rate_multiplier == 1.0
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.n_epochs == 2


def test_a_jobs_method_can_be_sent_back(server: RunningServer) -> None:
    method: dict[str, Any] = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": None}},
        "dpo": None,
        "reinforcement": None,
    }
    first = server.fine_tune(method=method, integrations=[], metadata=None, suffix=None)
    assert first.method is not None
    sent_back = first.method.model_dump(mode="json")
    assert sent_back.keys() == method.keys()
    second = server.fine_tune(method=sent_back, hyperparameters=None)
    assert second.hyperparameters == first.hyperparameters
    third = server.fine_tune(method={"type": "supervised", "supervised": None})
    assert third.hyperparameters.n_epochs == 1


def test_the_parts_of_a_models_name_are_told_apart(server: RunningServer) -> None:
    name = server.fine_tune(suffix="a:b:c").fine_tuned_model
    assert name is not None
    assert name.startswith("ft:llama:local:a-b-c:")
    assert len(name.split(":")) == 5


def test_the_multiplier_multiplies_the_local_learning_rate(start_server: StartServer) -> None:
    orders: list[TrainingOrder] = []

    def train(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        orders.append(order)
        return train_here(order, report, stop)

    server = start_server(train=train)
    server.fine_tune(hyperparameters={"learning_rate_multiplier": 0.5, "n_epochs": 3})
    assert orders[0].settings.training.learning_rate == pytest.approx(0.5e-2)
    assert orders[0].settings.training.epochs == 3


def test_a_tuned_model_can_be_tuned_further(server: RunningServer) -> None:
    first = server.fine_tune()
    second = server.fine_tune(model=first.fine_tuned_model)
    assert second.model == first.fine_tuned_model
    assert second.fine_tuned_model != first.fine_tuned_model


def test_a_validation_file_gives_validation_losses(server: RunningServer) -> None:
    job = server.fine_tune(validation_file=server.upload(3).id)
    table = server.client().files.content(job.result_files[0]).text.splitlines()
    assert float(table[-1].split(",")[3]) > 0


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (training_file(9), "invalid_n_examples", "has 9 example(s), but must have at least 10"),
        (training_file(10) + b"{not json\n", "invalid_training_file", "line 11: "),
        (
            training_file(3) + b'{"messages": []}\n' + training_file(9),
            "invalid_training_file",
            "line 4: messages: ",
        ),
        (training_file(12) + b"\xff\n", "invalid_training_file", "line 13: not UTF-8 text"),
        (
            training_file(10) + json.dumps({"prompt": "a", "completion": " b" * 600}).encode(),
            "invalid_training_file",
            "line 11: 602 tokens are longer than",
        ),
    ],
)
def test_bad_data_fails_the_job_and_says_where(
    server: RunningServer, content: bytes, code: str, told: str
) -> None:
    job = server.client().fine_tuning.jobs.create(
        model="llama", training_file=server.upload(content).id
    )
    job = server.finished(job.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, "training_file")
    assert told in job.error.message
    assert job.error.message in messages(server, job.id)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"training_file": "file-none"}, "training_file"),
        ({"suffix": ""}, "suffix"),
        ({"suffix": "s" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, None),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"hyperparameters": {"n_epochs": 51}}, None),
        ({"hyperparameters": {"batch_size": 0}}, None),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, None),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {}}}}, "method.dpo"),
        ({"method": {"type": "dpo", "supervised": {"hyperparameters": {}}}}, "method.supervised"),
        ({"method": {"type": "dpo", "reinforcement": {"grader": 1}}}, "method.reinforcement"),
        ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 2}}, "hyperparameters"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, None),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.1}}}}, None),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"extra_body": {"made_up": 1}}, "made_up"),
    ],
)
def test_requests_outside_the_ranges_are_refused(
    server: RunningServer, arguments: dict[str, Any], param: str | None
) -> None:
    arguments = {"model": "llama", "training_file": server.upload().id} | arguments
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().fine_tuning.jobs.create(**arguments)
    assert caught.value.type == "invalid_request_error"
    if param:
        assert caught.value.param == param
    assert server.client().fine_tuning.jobs.list().data == []


def test_an_unknown_model_is_not_found(server: RunningServer) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.client().fine_tuning.jobs.create(model="gpt-9", training_file=server.upload().id)
    assert caught.value.code == "model_not_found"


def test_a_file_for_batches_is_not_trained_on(server: RunningServer) -> None:
    file = server.client().files.create(file=("b.jsonl", training_file(10)), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="'fine-tune'"):
        server.client().fine_tuning.jobs.create(model="llama", training_file=file.id)


def test_jobs_are_found_by_their_metadata_over_pages(server: RunningServer) -> None:
    file = server.upload().id
    jobs = server.client().fine_tuning.jobs
    made = [
        jobs.create(model="llama", training_file=file, metadata={"parity": str(n % 2), "n": str(n)})
        for n in range(5)
    ]
    even = jobs.list(metadata={"parity": "0"}, limit=1)
    assert [job.id for job in even] == [made[n].id for n in (4, 2, 0)]
    assert [job.id for job in jobs.list(metadata={"n": "3"})] == [made[3].id]
    assert jobs.list(metadata={"n": ""}).data == []
    for job in made:
        server.finished(job.id)


class Held:
    """Trains when it is let go; each job that starts is noted."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started: list[str] = []

    def __call__(self, order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        self.started.append(order.job.run_id)
        until(lambda: self.go.is_set() or stop.is_set())
        return train_here(order, report, stop)


def test_jobs_are_trained_one_at_a_time_in_their_order(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held)
    jobs = server.client().fine_tuning.jobs
    file = server.upload().id
    first, second = (jobs.create(model="llama", training_file=file) for _ in range(2))
    until(lambda: jobs.retrieve(second.id).status == "queued" and held.started)
    assert jobs.retrieve(first.id).status == "running"
    assert held.started == [first.id]
    held.go.set()
    assert server.finished(second.id).status == "succeeded"
    assert held.started == [first.id, second.id]


def test_a_job_is_cancelled_whether_it_waits_or_runs(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held)
    jobs = server.client().fine_tuning.jobs
    file = server.upload().id
    first, second = (jobs.create(model="llama", training_file=file) for _ in range(2))
    until(lambda: held.started)
    assert jobs.cancel(second.id).status == "cancelled"
    assert jobs.cancel(first.id).status == "cancelled"
    third = jobs.create(model="llama", training_file=file)
    held.go.set()
    assert server.finished(third.id).status == "succeeded"
    assert held.started == [first.id, third.id]
    assert jobs.retrieve(first.id).status == "cancelled"
    assert jobs.retrieve(first.id).fine_tuned_model is None
    with pytest.raises(openai.BadRequestError, match="already completed"):
        jobs.cancel(third.id)


def test_too_many_waiting_jobs_are_refused(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held, max_unfinished_jobs=1)
    file = server.upload().id
    job = server.client().fine_tuning.jobs.create(model="llama", training_file=file)
    with pytest.raises(openai.RateLimitError):
        server.client().fine_tuning.jobs.create(model="llama", training_file=file)
    held.go.set()
    server.finished(job.id)


def test_a_training_that_fails_takes_only_its_job_down(start_server: StartServer) -> None:
    failures = [
        DeviceMemoryError("out of memory on a single training example"),
        ZeroDivisionError(),
    ]

    def train(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        if failures:
            raise failures.pop(0)
        return train_here(order, report, stop)

    server = start_server(train=train)
    jobs = server.client().fine_tuning.jobs
    file = server.upload().id
    ended = [server.finished(jobs.create(model="llama", training_file=file).id) for _ in range(3)]
    assert [job.status for job in ended] == ["failed", "failed", "succeeded"]
    assert ended[0].error is not None
    assert "out of memory" in ended[0].error.message
    assert ended[1].error is not None
    assert ended[1].error.code == "server_error"


def test_a_deleted_file_is_still_trained_on(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held)
    file = server.upload().id
    job = server.client().fine_tuning.jobs.create(model="llama", training_file=file)
    server.client().files.delete(file)
    held.go.set()
    assert server.finished(job.id).status == "succeeded"
    # And then nothing is left of it.
    until(lambda: not list(server.parts.data.path.rglob("*.jsonl")))


def test_a_job_whose_model_is_deleted_before_it_starts_fails(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held)
    held.go.set()
    first = server.fine_tune()
    held.go.clear()
    jobs = server.client().fine_tuning.jobs
    file = server.upload().id
    blocking = jobs.create(model="llama", training_file=file)
    waiting = jobs.create(model=str(first.fine_tuned_model), training_file=file)
    until(lambda: len(held.started) == 2)
    server.client().models.delete(str(first.fine_tuned_model))
    held.go.set()
    server.finished(blocking.id)
    failed = server.finished(waiting.id)
    assert failed.error is not None
    assert "starts from was deleted" in failed.error.message


def test_a_stopped_server_takes_its_jobs_up_again(start_server: StartServer) -> None:
    held = Held()
    server = start_server(train=held)
    jobs = server.client().fine_tuning.jobs
    file = server.upload().id
    made = [jobs.create(model="llama", training_file=file).id for _ in range(2)]
    until(lambda: held.started and jobs.retrieve(made[1]).status == "queued")
    server.stop()
    server = start_server()
    assert [server.finished(job).status for job in made] == ["succeeded", "succeeded"]
    assert len(server.client().models.list().data) == 3
