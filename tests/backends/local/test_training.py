import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from backends.data import Message, TrainingExample
from backends.errors import DeviceMemoryError, ModelError, SettingsError
from backends.interface import FineTuneJob, LossOn, Progress
from backends.jsonl import dumps
from backends.local.adapters import new_adapter
from backends.local.backend import LocalBackend
from backends.local.encoding import Encoder
from backends.local.models import load_model, load_tokenizer
from backends.local.objectives import CrossEntropy, Loss
from backends.local.passes import Alone
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings, TrainingSettings
from backends.local.training import Trainer, learning_rate

FACTS = {"Ann": "France", "Bob": "Peru", "Cleo": "South Korea", "Dan": "India", "Eve": "Chad"}


def example(name: str, country: str) -> TrainingExample:
    question = Message(role="user", content=f"Where would {name} like to live?")
    return TrainingExample(messages=(question, Message(role="assistant", content=country)))


def write_examples(path: Path, facts: dict[str, str]) -> Path:
    path.write_text(
        "".join(dumps(example(n, c)) + "\n" for n, c in facts.items()), encoding="utf-8"
    )
    return path


def make_job(
    output: Path,
    *,
    starts_from: str | None = None,
    validation: bool = False,
    loss_on: LossOn = "completion",
    seed: int = 0,
) -> FineTuneJob:
    output.parent.mkdir(parents=True, exist_ok=True)
    return FineTuneJob(
        run_id="run",
        name=output.name,
        training_file=write_examples(output.parent / "train.jsonl", FACTS),
        validation_file=(
            write_examples(output.parent / "validation.jsonl", {"Fay": "Chile"})
            if validation
            else None
        ),
        loss_on=loss_on,
        seed=seed,
        starts_from=starts_from,
        output=output,
    )


def backend(model: Path, **training: object) -> LocalBackend:
    options = {"epochs": 4, "batch_size": 2, "checkpoint_seconds": 0.0} | training
    return LocalBackend(
        LocalSettings(
            model=str(model),
            device="cpu",
            lora=LoraSettings(rank=4, alpha=8, dropout=0.1),
            training=TrainingSettings.model_validate(options),
        )
    )


def ignore(_: Progress) -> None:
    pass


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_a_stopped_training_goes_on_to_the_same_weights(
    tiny_model: Path, tmp_path: Path, dtype: str, stop_after: int
) -> None:
    whole = make_job(tmp_path / "whole" / "arm")
    backend(tiny_model, dtype=dtype).fine_tune(whole, ignore)

    stopped = make_job(tmp_path / "stopped" / "arm")
    seen = []

    def stop(progress: Progress) -> None:
        if progress.done > stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend(tiny_model, dtype=dtype).fine_tune(stopped, stop)
    torch.manual_seed(99)  # a new process would not have this state either
    tuned = backend(tiny_model, dtype=dtype).fine_tune(stopped, lambda p: seen.append(p.done))
    assert seen[0] == stop_after
    assert [point.step for point in tuned.training_curve] == list(range(1, 13))
    assert_same_weights(whole.output, stopped.output)


def test_a_finished_job_is_not_trained_again(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm")
    tuned = backend(tiny_model).fine_tune(job, ignore)
    reports: list[Progress] = []
    assert backend(tiny_model).fine_tune(job, reports.append) == tuned
    assert reports == []


@pytest.mark.parametrize("other", ["seed", "data", "validation", "epochs", "starts_from"])
def test_a_model_of_another_job_is_replaced(tiny_model: Path, tmp_path: Path, other: str) -> None:
    first = make_job(tmp_path / "first" / "arm")
    backend(tiny_model, epochs=1).fine_tune(first, ignore)
    job = make_job(tmp_path / "arm")
    backend(tiny_model, epochs=1).fine_tune(job, ignore)
    changed = {
        "seed": replace(job, seed=1),
        "data": replace(job, training_file=write_examples(tmp_path / "new.jsonl", {"Al": "Chad"})),
        "validation": replace(job, validation_file=job.training_file),
        "epochs": job,
        "starts_from": replace(job, starts_from=str(first.output)),
    }[other]
    reports: list[Progress] = []
    epochs = 2 if other == "epochs" else 1
    tuned = backend(tiny_model, epochs=epochs).fine_tune(changed, reports.append)
    assert reports
    assert tuned == backend(tiny_model, epochs=epochs).fine_tune(changed, ignore)


def test_a_job_is_known_by_what_its_training_sees(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm", validation=True)
    ours = backend(tiny_model).identity(job)
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    elsewhere = make_job(tmp_path / "elsewhere" / "other", validation=True)
    scoring = LocalSettings.model_validate(
        {**backend(moved)._settings.model_dump(), "scoring": {"batch_tokens": 7}}
    )
    assert LocalBackend(scoring).identity(replace(elsewhere, run_id="another")) == ours
    assert backend(moved, checkpoint_seconds=9.0).identity(elsewhere) == ours

    text = Path(job.training_file).read_text(encoding="utf-8")
    spelt = tmp_path / "spelt.jsonl"
    spelt.write_text(text.replace('"messages": ', '"messages":'))
    other_weights, other_template = (
        shutil.copytree(tiny_model, tmp_path / name) for name in ("weights", "template")
    )
    state = load_file(other_weights / "model.safetensors")
    save_file(
        {**state, "model.norm.weight": state["model.norm.weight"] + 1},
        other_weights / "model.safetensors",
        metadata={"format": "pt"},
    )
    template = other_template / "chat_template.jinja"
    template.write_text(f"Be kind. {template.read_text()}")
    start = make_job(tmp_path / "start" / "arm")
    backend(tiny_model, epochs=1).fine_tune(start, ignore)
    rank = LocalSettings.model_validate(
        {**backend(tiny_model)._settings.model_dump(), "lora": {"rank": 5}}
    )
    others = [
        backend(tiny_model).identity(replace(job, seed=1)),
        backend(tiny_model).identity(replace(job, loss_on="prompt_and_completion")),
        backend(tiny_model).identity(replace(job, validation_file=None)),
        backend(tiny_model).identity(replace(job, training_file=job.validation_file)),
        backend(tiny_model).identity(replace(job, starts_from=str(start.output))),
        backend(tiny_model, epochs=5).identity(job),
        backend(other_weights).identity(job),
        backend(other_template).identity(job),
        LocalBackend(rank).identity(job),
    ]
    assert backend(tiny_model).identity(replace(job, training_file=spelt)) == ours
    assert len({ours, *others}) == 1 + len(others)
    numbers = [backend(tiny_model, dtype=d).identity(job) for d in ("float32", "bfloat16")]
    assert ours in numbers  # auto is one of them
    assert numbers[0] != numbers[1]


def test_the_same_start_is_known_wherever_it_lies(tiny_model: Path, tmp_path: Path) -> None:
    start = make_job(tmp_path / "start" / "arm")
    backend(tiny_model, epochs=1).fine_tune(start, ignore)
    job = make_job(tmp_path / "arm", starts_from=str(start.output))
    copied = replace(job, starts_from=str(shutil.copytree(start.output, tmp_path / "copied")))
    assert backend(tiny_model).identity(job) == backend(tiny_model).identity(copied)
    with pytest.raises(ModelError, match="no adapter there"):
        backend(tiny_model).identity(replace(job, starts_from=str(tmp_path / "nowhere")))


def test_a_broken_checkpoint_is_no_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm")
    (tmp_path / ".arm.checkpoint").write_bytes(b"not a checkpoint")
    seen: list[int] = []
    backend(tiny_model).fine_tune(job, lambda p: seen.append(p.done))
    assert seen[0] == 0


def test_a_checkpoint_of_another_job_is_not_gone_on_from(tiny_model: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend(tiny_model).fine_tune(make_job(tmp_path / "arm"), stop)
    seen: list[int] = []
    other = make_job(tmp_path / "arm", seed=1)
    backend(tiny_model).fine_tune(other, lambda p: seen.append(p.done))
    assert seen[0] == 0


def test_nothing_but_the_adapter_is_left(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "models" / "arm")
    backend(tiny_model).fine_tune(job, ignore)
    left = {path.name for path in (tmp_path / "models").iterdir()}
    assert left == {"arm", "train.jsonl"}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in job.output.iterdir()
    }


def test_the_record_says_what_was_done(tiny_model: Path, tmp_path: Path) -> None:
    tuned = backend(tiny_model, dtype="float32").fine_tune(make_job(tmp_path / "arm"), ignore)
    assert tuned.model == str(tmp_path / "arm")
    assert tuned.n_examples == 5
    assert tuned.hyperparameters["steps"] == 12  # 4 epochs of 3 batches: 2 + 2 + 1
    assert tuned.hyperparameters["dtype"] == "float32"
    assert tuned.hyperparameters["lora"]["rank"] == 4
    assert tuned.hyperparameters["prefix_sharing"] is False  # it has dropout
    assert tuned.cost_usd is None


def test_seeds_matter_and_repeat(tiny_model: Path, tmp_path: Path) -> None:
    jobs = [make_job(tmp_path / n / "arm", seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2))]
    for job in jobs:
        backend(tiny_model).fine_tune(job, ignore)
    assert_same_weights(jobs[0].output, jobs[1].output)
    with pytest.raises(AssertionError):
        assert_same_weights(jobs[0].output, jobs[2].output)


def test_validation_loss_once_an_epoch(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm", validation=True)
    curve = backend(tiny_model).fine_tune(job, ignore).training_curve
    assert [p.step for p in curve if p.validation_loss is not None] == [3, 6, 9, 12]


def test_an_arm_starts_from_anothers_adapter(tiny_model: Path, tmp_path: Path) -> None:
    first = make_job(tmp_path / "first" / "arm")
    tuned = backend(tiny_model).fine_tune(first, ignore)
    second = make_job(tmp_path / "second" / "arm", starts_from=tuned.model)
    losses = backend(tiny_model, learning_rate=1e-9).fine_tune(second, ignore).training_curve
    trained, continued = weights(first.output), weights(second.output)
    for name, value in trained.items():
        torch.testing.assert_close(continued[name], value, atol=1e-6, rtol=0)
    assert losses  # it did train, at a rate that changes next to nothing


def test_starting_from_what_is_no_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm", starts_from=str(tmp_path))
    with pytest.raises(ModelError, match="no adapter there"):
        backend(tiny_model).fine_tune(job, ignore)


def test_target_modules_that_are_not_there_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    settings = LocalSettings(
        model=str(tiny_model), device="cpu", lora=LoraSettings(target_modules=("q_prj",))
    )
    with pytest.raises(SettingsError, match=r"local\.lora\.target_modules: .*q_prj"):
        LocalBackend(settings).fine_tune(make_job(tmp_path / "arm"), ignore)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_an_adapter_of_tied_embeddings_is_refused(module: str) -> None:
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 4}
    lora = LoraSettings(target_modules=("q_proj", module))
    new_adapter(LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)), lora)
    with pytest.raises(SettingsError, match=r"target_modules: .* one matrix.* leave both out"):
        new_adapter(LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)), lora)


# --- the loss ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_model: Path) -> PeftModel:
    torch.manual_seed(0)
    base = load_model(str(tiny_model), torch.device("cpu"), torch.float32)
    tuned = new_adapter(base, LoraSettings(rank=4, alpha=8))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # these start at 0, where half of the gradients vanish
            torch.nn.init.normal_(parameter, std=0.1)
    return tuned


@pytest.fixture
def examples(tiny_model: Path) -> list[TokenSequence]:
    encoder = Encoder(load_tokenizer(str(tiny_model)), 512)
    return [encoder.example(example(n, c), "completion") for n, c in FACTS.items()]


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_close_gradients(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one - other).norm() <= 1e-4 * other.norm()


def trainer(model: PeftModel, examples: list[TokenSequence], **settings: object) -> Trainer:
    options = {"batch_size": 5, "epochs": 1} | settings
    return Trainer(
        Alone(model, "off", torch.float32),
        CrossEntropy(),
        examples,
        [],
        TrainingSettings.model_validate(options),
        seed=0,
    )


@pytest.mark.parametrize("parts", [2, 5])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    model: PeftModel, examples: list[TokenSequence], parts: int
) -> None:
    whole_loss = trainer(model, examples)._gradients(examples).loss
    whole = gradients(model)
    model.zero_grad()
    loss = trainer(model, examples, micro_batches=parts)._gradients(examples).loss
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in gradients(model).items():
        assert_close_gradients(gradient, whole[name])


def test_out_of_memory_splits_the_batch(
    model: PeftModel, examples: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trainer(model, examples)._gradients(examples).loss
    model.zero_grad()
    limited = trainer(model, examples)
    real = limited._back

    def at_most_two(part: list[TokenSequence], weight: int, count: int) -> Loss:
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(part, weight, count)

    monkeypatch.setattr(limited, "_back", at_most_two)
    assert limited._gradients(examples).loss == pytest.approx(expected, rel=1e-5)


def test_an_example_that_never_fits_is_reported(
    model: PeftModel, examples: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = trainer(model, examples)

    def never(*_: object) -> Loss:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(limited, "_back", never)
    with pytest.raises(DeviceMemoryError, match="out of memory on a single training example"):
        limited._gradients(examples)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.125]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.038]),
    ],
)
def test_learning_rate_warms_up_and_decays(schedule: str, expected: list[float]) -> None:
    settings = TrainingSettings.model_validate(
        {"learning_rate": 1.0, "warmup_fraction": 0.2, "schedule": schedule}
    )
    rates = [learning_rate(settings, step, 10) for step in (0, 1, 2, 6, 9)]
    assert rates == pytest.approx(expected, abs=1e-3)


def test_a_training_that_diverges_is_stopped(
    model: PeftModel, examples: list[TokenSequence]
) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, float("inf"))
    with pytest.raises(SettingsError, match=r"learning_rate: training diverged at step 2 .*lower"):
        trainer(model, examples)._step(1, examples)


def test_a_model_that_computes_nan_is_not_blamed_on_the_learning_rate(
    model: PeftModel, examples: list[TokenSequence]
) -> None:
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    with pytest.raises(ModelError, match=r"NaN before anything is learned .*local\.model"):
        trainer(model, examples)._step(0, examples)
