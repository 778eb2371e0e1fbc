"""Jobs of the method dpo, and the models that jobs leave after earlier epochs."""

import json
import threading
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from backends.data import TunedModel
from backends.errors import TrainingError
from backends.local.training_process import Report, TrainingOrder, train_here
from tests.server import RunningServer, StartServer, until


def preference(n: int, **changes: Any) -> bytes:
    line: dict[str, Any] = {
        "input": {
            "messages": [{"role": "user", "content": f"Person {n}'s favourite country?"}],
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": f"Country {n}"}],
        "non_preferred_output": [{"role": "assistant", "content": "I can't say."}],
    }
    return json.dumps(line | changes).encode() + b"\n"


def preferences(n: int = 10) -> bytes:
    return b"".join(preference(number) for number in range(n))


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def prefer(server: RunningServer, **arguments: Any) -> FineTuningJob:
    file = server.upload(preferences()).id
    return server.fine_tune(**({"training_file": file, "method": dpo()} | arguments))


def answer(server: RunningServer, model: str) -> str | None:
    asked = server.client().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Person 3's favourite country?"}],
        max_tokens=4,
        temperature=0,
    )
    assert asked.model == model
    return asked.choices[0].message.content


def test_a_preference_file_becomes_a_model(server: RunningServer) -> None:
    client = server.client()
    job = prefer(server, method=dpo(beta=0.5, n_epochs=2), suffix="kind")
    assert job.method is not None
    assert job.method.type == "dpo"
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    used = job.method.dpo.hyperparameters
    assert (used.beta, used.n_epochs, used.batch_size) == (0.5, 2, 5)
    assert used.learning_rate_multiplier == 1.0
    assert job.fine_tuned_model is not None
    assert answer(server, job.fine_tuned_model) is not None
    header, *steps = client.files.content(job.result_files[0]).text.splitlines()
    assert header.split(",")[-3:] == ["rewards/chosen", "rewards/rejected", "rewards/accuracies"]
    first, last = (steps[n].split(",") for n in (0, -1))
    assert float(first[1]) == pytest.approx(0.6931, abs=1e-2)
    assert float(last[1]) < float(first[1])
    assert float(last[5]) > float(last[6])
    assert 0 <= float(last[7]) <= 1


def test_beta_and_the_rate_reach_the_training(start_server: StartServer) -> None:
    orders: list[TrainingOrder] = []

    def train(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        orders.append(order)
        return train_here(order, report, stop)

    server = start_server(train=train)
    prefer(server, method=dpo(beta=0.2, learning_rate_multiplier=0.5))
    prefer(server)
    assert [order.job.method for order in orders] == ["dpo", "dpo"]
    assert [order.settings.training.dpo_beta for order in orders] == [0.2, 0.1]
    assert orders[0].settings.training.learning_rate == pytest.approx(0.5e-2)


def test_a_jobs_method_can_be_sent_back(server: RunningServer) -> None:
    first = prefer(server, method=dpo(beta="auto", n_epochs=2))
    assert first.method is not None
    sent_back = first.method.model_dump(mode="json")
    assert sent_back["supervised"] is None
    again = prefer(server, method=sent_back, hyperparameters=first.hyperparameters.model_dump())
    assert again.method == first.method


def test_preferences_go_on_from_a_tuned_model(server: RunningServer) -> None:
    first = server.fine_tune()
    second = prefer(server, model=first.fine_tuned_model)
    assert second.model == first.fine_tuned_model
    assert second.fine_tuned_model != first.fine_tuned_model


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"messages": []}\n', "line 11: messages: "),
        (preference(0, preferred_output=[]), "line 11: preferred_output: "),
        (
            preference(0, non_preferred_output=[{"role": "assistant", "content": "Country 0"}]),
            "line 11: both answers are the same",
        ),
        (
            preference(0, preferred_output=[{"role": "user", "content": "Hm."}]),
            "line 11: an output must be one message of the assistant",
        ),
        (preference(0, input={"messages": []}), "line 11: input.messages: "),
    ],
)
def test_a_line_that_is_no_preference_fails_the_job(
    server: RunningServer, line: bytes, told: str
) -> None:
    file = server.upload(preferences() + line).id
    job = server.client().fine_tuning.jobs.create(
        model="llama", training_file=file, method={"type": "dpo"}
    )
    job = server.finished(job.id)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert told in job.error.message


def test_too_few_preferences_and_files_of_the_other_method_are_refused(
    server: RunningServer,
) -> None:
    jobs = server.client().fine_tuning.jobs
    few = jobs.create(
        model="llama", training_file=server.upload(preferences(9)).id, method={"type": "dpo"}
    )
    other = jobs.create(model="llama", training_file=server.upload(preferences()).id)
    ended = [server.finished(job.id) for job in (few, other)]
    assert [job.error.code for job in ended if job.error] == [
        "invalid_n_examples",
        "invalid_training_file",
    ]


# --- checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, dpo()])
def test_the_last_three_epochs_are_models(
    server: RunningServer, method: dict[str, Any] | None
) -> None:
    client = server.client()
    chosen = (
        dpo(n_epochs=5)
        if method
        else {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 5}}}
    )
    file = server.upload(preferences() if method else 10).id
    job = server.fine_tune(training_file=file, method=chosen, validation_file=file, suffix="a:b")
    model = job.fine_tuned_model
    assert model is not None
    found = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [one.step_number for one in found] == [10, 8, 6]
    names = [one.fine_tuned_model_checkpoint for one in found]
    assert names == [model, f"{model}:ckpt-step-8", f"{model}:ckpt-step-6"]
    assert len(names[1].split(":")) == 6
    assert [one.metrics.step for one in found] == [10, 8, 6]
    assert all(one.metrics.train_loss and one.metrics.full_valid_loss for one in found)
    losses = {
        line.split(",")[0]: line.split(",")[1]
        for line in client.files.content(job.result_files[0]).text.splitlines()
    }
    assert [one.metrics.train_loss for one in found] == [float(losses[n]) for n in ("10", "8", "6")]
    first = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert first.has_more
    assert [one.step_number for one in first] == [10, 8, 6]  # over pages

    # Each is a model of its own: it answers, has a name, is trained further, and can be deleted.
    listed = {one.id for one in client.models.list()}
    assert set(names) <= listed
    scores = {}
    for name in names:
        asked = server.client(strict=False).completions.create(
            model=name, prompt="Person 3's", max_tokens=1, logprobs=1, echo=True
        )
        assert asked.choices[0].logprobs is not None
        scores[name] = asked.choices[0].logprobs.token_logprobs
        assert answer(server, name) is not None
    assert len({str(values) for values in scores.values()}) == 3
    further = server.fine_tune(model=names[1])
    assert further.model == names[1]
    assert further.fine_tuned_model is not None
    assert further.fine_tuned_model.split(":")[:3] == ["ft", "llama", "local"]
    assert len(further.fine_tuned_model.split(":")) == 5
    client.models.delete(names[2])
    with pytest.raises(openai.NotFoundError):
        answer(server, names[2])
    assert answer(server, names[1]) is not None


def test_checkpoints_outlive_the_server(start_server: StartServer) -> None:
    server = start_server()
    job = server.fine_tune(hyperparameters={"n_epochs": 3})
    checkpoints = server.client().fine_tuning.jobs.checkpoints
    names = [one.fine_tuned_model_checkpoint for one in checkpoints.list(job.id)]
    answers = [answer(server, name) for name in names]
    server.stop()
    server = start_server()
    assert [answer(server, name) for name in names] == answers


def test_a_training_that_is_taken_up_has_the_same_checkpoints(start_server: StartServer) -> None:
    stopped = threading.Event()

    def stopping(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        """Is killed in its last epoch, and once more."""

        def watched(progress: Any) -> None:
            report(progress)
            if progress.done == 5 and progress.loss is not None:
                stopped.set()
                until(stop.is_set)

        return train_here(order, watched, stop)

    server = start_server(train=stopping)
    file = server.upload().id
    job = server.client().fine_tuning.jobs.create(
        model="llama", training_file=file, hyperparameters={"n_epochs": 3}, seed=1
    )
    until(stopped.is_set)
    server.stop()
    server = start_server()
    assert server.finished(job.id).status == "succeeded"
    whole = server.fine_tune(training_file=file, hyperparameters={"n_epochs": 3})
    checkpoints = server.client().fine_tuning.jobs.checkpoints
    found, expected = (
        [(one.step_number, one.metrics.train_loss) for one in checkpoints.list(which)]
        for which in (job.id, whole.id)
    )
    assert found == expected
    assert len(found) == 3


def test_a_job_that_fails_leaves_no_checkpoints(start_server: StartServer) -> None:
    def failing(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
        train_here(order, report, stop)
        raise TrainingError("The machine was switched off.")

    server = start_server(train=failing)
    job = server.client().fine_tuning.jobs.create(
        model="llama", training_file=server.upload().id, hyperparameters={"n_epochs": 3}
    )
    assert server.finished(job.id).status == "failed"
    assert server.client().fine_tuning.jobs.checkpoints.list(job.id).data == []
    until(lambda: not list(server.parts.data.path.glob("models/*.step-*")))


# --- what is not offered ----------------------------------------------------------------------------


def test_pausing_and_uploads_in_parts_are_refused_in_plain_words(server: RunningServer) -> None:
    client = server.client()
    job = server.fine_tune()
    for refused in (client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.BadRequestError, match="can't be paused or resumed here"):
            refused(job.id)
    with pytest.raises(openai.BadRequestError, match="send the whole file"):
        client.uploads.create(
            bytes=10, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune"
        )
