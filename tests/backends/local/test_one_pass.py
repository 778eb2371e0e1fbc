"""Several trainings in one pass: each has the loss and the gradients that it has alone."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from backends.data import TunedModel
from backends.errors import KaarelBetError, SettingsError
from backends.interface import FineTuneJob, Place, Progress, Stopped
from backends.local import one_pass as module
from backends.local import prefix_engine
from backends.local.adapters import ADAPTER_WEIGHTS, another_adapter, base_of, new_adapter
from backends.local.backend import LocalBackend
from backends.local.engine import say_once
from backends.local.fused_lora import MixedRowsError, is_fused, rows_of_adapters
from backends.local.models import load_model, locate
from backends.local.objectives import rounding
from backends.local.prefix_engine import PrefixEngine
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings
from tests.models import EMBEDDED

CPU = torch.device("cpu")
STEM = list(range(100, 120))
GROUPS = [
    [
        TokenSequence([*STEM, *range(n, n + length)], list(range(21, 20 + length)))
        for n, length in each
    ]
    for each in (((200, 12), (230, 5)), ((240, 3),), ((200, 12), (260, 9), (280, 2)))
]
NAMES = ["one", "two", "three"]


def adapted(location: str, dtype: torch.dtype = torch.float32) -> PeftModel:
    """With three adapters, drawn from three seeds, that have learned something."""
    base = load_model(location, CPU, dtype)
    model: PeftModel | None = None
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        lora = LoraSettings(rank=4, alpha=8)
        model = new_adapter(base, lora, name) if model is None else another_adapter(model, name)
        for key, parameter in model.named_parameters():
            if "lora_B" in key and f".{name}." in key:
                torch.nn.init.normal_(parameter, std=0.02)
    assert model is not None
    return model.train()


def gradients(model: PeftModel, name: str) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in model.named_parameters() if f".{name}." in n}
    return {n: gradient.clone() for n, gradient in found.items() if gradient is not None}


def activate(model: PeftModel, names: list[str]) -> None:
    model.base_model.set_adapter(names)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("which", "multiple"), [("llama", 1), ("llama", 16), ("gemma2", 16), ("embedded", 1)]
)
def test_losses_and_gradients_are_those_of_each_alone(
    tiny_models: dict[str, Path], which: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rows are filled up, as they are in bfloat16, or not."""
    monkeypatch.setattr(prefix_engine, "rows_multiple", lambda _: multiple)
    model = adapted(locate(EMBEDDED) if which == "embedded" else str(tiny_models[which]))
    engine = PrefixEngine(base_of(model))
    losses, alone = [], {}
    for name, group in zip(NAMES, GROUPS, strict=True):
        activate(model, [name])
        loss = -engine.log_probabilities(group).mean()
        loss.backward()
        losses.append(loss.item())
        alone |= gradients(model, name)
    model.zero_grad()
    activate(model, NAMES)
    together = [-found.mean() for found in engine.together(GROUPS)]
    torch.stack(together).sum().backward()
    assert [loss.item() for loss in together] == pytest.approx(losses, rel=1e-5)
    found = {key: value for name in NAMES for key, value in gradients(model, name).items()}
    assert found.keys() == alone.keys()
    assert all(gradient.norm() > 0 for gradient in alone.values())
    for key, gradient in alone.items():
        assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm(), key


def test_in_bfloat16_as_well_within_its_rounding(tiny_model: Path) -> None:
    model = adapted(str(tiny_model), torch.bfloat16)
    engine = PrefixEngine(base_of(model))
    with rounding(CPU, torch.bfloat16):
        activate(model, NAMES)
        together = engine.together(GROUPS)
        for name, group, found in zip(NAMES, GROUPS, together, strict=True):
            activate(model, [name])
            torch.testing.assert_close(found, engine.log_probabilities(group), rtol=0, atol=0.05)


def test_layers_that_see_other_rows_are_told_from_those_that_see_all(
    tiny_models: dict[str, Path],
) -> None:
    model = adapted(str(tiny_models["llama"]))
    activate(model, NAMES)
    with rows_of_adapters([3, 3, 4]), pytest.raises(MixedRowsError):
        base_of(model)(input_ids=torch.arange(12)[None])
    # PEFT adds up the adapters of layers that are no plain linear ones.
    torch.manual_seed(0)
    base = load_model(str(tiny_models["gpt2"]), CPU, torch.float32)
    assert is_fused(adapted(str(tiny_models["llama"])))
    assert not is_fused(new_adapter(base, LoraSettings()))


def backend(model: Path, **settings: object) -> LocalBackend:
    own = {
        "dtype": "float32",
        "epochs": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "checkpoint_seconds": 0,
    }
    chosen = {"model": str(model), "device": "cpu", "training": own, "lora": {"rank": 4}}
    return LocalBackend(LocalSettings.model_validate(chosen | {"one_pass": True} | settings))


@pytest.fixture
def jobs(tmp_path: Path) -> list[FineTuneJob]:
    """Three of different lengths, one with validation data and one that keeps its epochs."""
    facts = ["Peru", "Chad", "Chile", "India", "Cuba", "Mali", "Oman"]
    found = []
    for number, size in enumerate((7, 4, 5)):
        file = tmp_path / f"train{number}.jsonl"
        lines = [{"prompt": f"{n} is", "completion": f" {f}"} for n, f in enumerate(facts[:size])]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        output = tmp_path / "models" / f"arm{number}"
        found.append(FineTuneJob("run", "arm", file, None, "completion", number, None, output))
    found[1] = replace(found[1], validation_file=found[2].training_file)
    found[2] = replace(found[2], kept_epochs=2)
    return found


Report = Callable[[int, Progress], None]


def train_all(
    backend: LocalBackend, jobs: Sequence[FineTuneJob], report: Report = lambda *_: None
) -> list[TunedModel | Exception]:
    """All at once, as the executor does; what each came to."""
    stop = threading.Event()

    def train(number: int) -> TunedModel | Exception:
        try:
            place = Place(number, len(jobs), stop)
            return backend.fine_tune(jobs[number], lambda now: report(number, now), place)
        except (KaarelBetError, Stopped) as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(train, range(len(jobs))))


def weights(model: TunedModel | Exception) -> dict[str, torch.Tensor]:
    assert isinstance(model, TunedModel), model
    return load_file(Path(model.model) / ADAPTER_WEIGHTS)


def assert_as_alone(
    model: Path, jobs: Sequence[FineTuneJob], found: Sequence[TunedModel | Exception], **own: object
) -> None:
    for job, one in zip(jobs, found, strict=True):
        alone = replace(job, output=job.output.with_name(f"{job.output.name}-alone"))
        expected = backend(model, one_pass=False, **own).fine_tune(alone, lambda _: None)
        assert isinstance(one, TunedModel), one
        assert len(one.training_curve) == len(expected.training_curve)
        for mine, its in zip(one.training_curve, expected.training_curve, strict=True):
            assert mine.train_loss == pytest.approx(its.train_loss, rel=1e-4)
            assert (mine.validation_loss is None) == (its.validation_loss is None)
            assert mine.validation_loss or pytest.approx(its.validation_loss or 0, rel=1e-4) == 0
        ours, theirs = weights(one), weights(expected)
        assert ours.keys() == theirs.keys()
        # AdamW divides by gradients' sizes, tiny ones too, and so magnifies rounding; B begins at 0.
        learned = [name for name in theirs if "lora_B" in name]
        apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in learned])
        whole = torch.cat([theirs[name].flatten() for name in learned])
        assert apart.norm() <= 1e-4 * whole.norm()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each pass, how many trainings it was for."""
    seen: list[int] = []
    together = PrefixEngine.together

    def counted(
        self: PrefixEngine, groups: Sequence[Sequence[TokenSequence]]
    ) -> list[torch.Tensor]:
        if torch.is_grad_enabled():
            seen.append(len(groups))
        return together(self, groups)

    monkeypatch.setattr(PrefixEngine, "together", counted)
    return seen


def test_trainings_come_to_the_models_that_they_come_to_alone(
    tiny_model: Path, jobs: list[FineTuneJob], sizes: list[int]
) -> None:
    ours = backend(tiny_model)
    estimates = [ours.estimate(job) for job in jobs]
    assert ours.side_by_side(estimates) == 3
    found = train_all(ours, jobs)
    # Of 12, 6 and 9 steps: while all three are there, two, one.
    assert sum(sizes) == 12 + 6 + 9
    assert max(sizes) == 3
    assert len(sizes) < 12 + 6 + 9
    assert_as_alone(tiny_model, jobs, found)
    kept = jobs[2].epoch_model(6)
    assert (kept / ADAPTER_WEIGHTS).exists()
    assert [path.name for path in jobs[0].output.parent.glob(".*")] == []


def test_a_training_that_is_stopped_is_taken_up_with_others_or_alone(
    tiny_model: Path, jobs: list[FineTuneJob]
) -> None:
    def stop_late(number: int, now: Progress) -> None:
        if number == 0 and now.done == 7:
            raise Stopped

    first = train_all(backend(tiny_model), jobs, stop_late)
    assert isinstance(first[0], Stopped)
    begun: list[int] = []
    second = train_all(backend(tiny_model), jobs[:2], lambda n, now: begun.append(n or now.done))
    assert 6 <= next(done for done in begun if done != 1) <= 7
    assert_as_alone(tiny_model, jobs, [second[0], *first[1:]])


def test_one_that_diverges_takes_no_other_with_it(
    tiny_model: Path, jobs: list[FineTuneJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = module.FineTuning.trainable

    def damaged(
        self: module.FineTuning, job: FineTuneJob, name: str, others: PeftModel | None = None
    ) -> PeftModel:
        model = make(self, job, name, others)
        for key, parameter in model.named_parameters():
            if job.seed == 1 and f"lora_B.{name}." in key:
                torch.nn.init.constant_(parameter, float("inf"))
        return model

    monkeypatch.setattr(module.FineTuning, "trainable", damaged)
    found = train_all(backend(tiny_model), jobs)
    assert isinstance(found[1], KaarelBetError)
    assert "the model computes NaN" in str(found[1])
    monkeypatch.undo()
    assert_as_alone(tiny_model, [jobs[0], jobs[2]], [found[0], found[2]])


def test_what_can_not_be_in_one_pass_is_computed_one_by_one(
    tiny_model: Path,
    jobs: list[FineTuneJob],
    sizes: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say_once.cache_clear()
    monkeypatch.setattr(module, "is_fused", lambda _: False)
    found = train_all(backend(tiny_model), jobs)
    assert set(sizes) == {1}
    assert "LlamaForCausalLM: trainings are computed one by one (local.one_pass)" in caplog.text
    assert_as_alone(tiny_model, jobs, found)


def test_an_adapter_of_the_head_is_trained_by_itself(
    tiny_model: Path, jobs: list[FineTuneJob], sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    of_head = {"rank": 4, "target_modules": ("q_proj", "lm_head")}
    found = train_all(backend(tiny_model, lora=of_head), jobs)
    assert all(isinstance(each, TunedModel) for each in found)
    assert set(sizes) == {1}
    assert "LlamaForCausalLM: trainings are computed one by one (local.one_pass)" in caplog.text


def test_a_model_that_draws_noise_is_refused(
    tiny_models: dict[str, Path], jobs: list[FineTuneJob]
) -> None:
    for error in train_all(backend(tiny_models["gpt2"]), jobs):
        assert isinstance(error, SettingsError)
        assert "local.one_pass: GPT2LMHeadModel draws noise in training (" in str(error)


def test_memory_that_runs_out_makes_all_take_less_at_a_time(
    tiny_model: Path, jobs: list[FineTuneJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = PrefixEngine.together

    def limited(
        self: PrefixEngine, groups: Sequence[Sequence[TokenSequence]]
    ) -> list[torch.Tensor]:
        if torch.is_grad_enabled() and sum(map(len, groups)) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return together(self, groups)

    monkeypatch.setattr(PrefixEngine, "together", limited)
    found = train_all(backend(tiny_model), jobs)
    monkeypatch.undo()
    assert_as_alone(tiny_model, jobs, found)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lora": {"dropout": 0.1}}, r"local\.lora\.dropout: 0\.1"),
        ({"prefix_sharing": "off"}, r"local\.prefix_sharing: off"),
        ({"training": {"gradient_checkpointing": True}}, r"gradient_checkpointing: true"),
        ({"shard": "fsdp", "processes": 2}, r"local\.shard: fsdp"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    tiny_model: Path, settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^local\.one_pass: .*{problem}"):
        backend(tiny_model, **settings)
