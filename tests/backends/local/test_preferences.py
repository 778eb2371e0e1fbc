"""Direct preference optimisation: the formula's loss and gradients, and trainings that are killed."""

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import log_softmax, logsigmoid

from backends.data import PreferenceExample
from backends.errors import DataError, DeviceMemoryError
from backends.interface import FineTuneJob, Progress
from backends.jsonl import lines
from backends.local.adapters import base_of, load_adapter, new_adapter, save_adapter
from backends.local.backend import LocalBackend
from backends.local.encoding import Encoder
from backends.local.models import load_model, load_tokenizer, locate
from backends.local.objectives import DirectPreference, Loss, rewards_of, with_reference
from backends.local.passes import Alone
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.sequences import Learned, Pair
from backends.local.settings import LocalSettings, LoraSettings, TrainingSettings
from backends.local.training import Trainer
from benchmarks.peer_environment import peer_command
from tests.backends.local.test_training import assert_same_weights, gradients, ignore
from tests.models import EMBEDDED

TRL = ("trl==1.16.0",)
BETA = 0.3


def chat(name: str, better: str, worse: str) -> PreferenceExample:
    return PreferenceExample.model_validate_json(
        json.dumps(
            {
                "input": {
                    "messages": [
                        {"role": "user", "content": "Hello."},
                        {"role": "assistant", "content": "Hello!"},
                        {"role": "user", "content": f"Where would {name} like to live?"},
                    ]
                },
                "preferred_output": [{"role": "assistant", "content": better}],
                "non_preferred_output": [{"role": "assistant", "content": worse}],
            }
        )
    )


CHATS = [
    chat("Ann", "In France.", "I can't say."),
    chat("Bob", "In Peru, of course.", "No."),
    chat("Cleo", "In South Korea.", "In France."),
    chat("Dan", "In India.", "That depends on many things."),
    chat("Eve", "In Chad.", "In Chile."),
]
TEXTS = [
    PreferenceExample(prompt="2 + 2 =", chosen=" 4", rejected=" five or so"),
    PreferenceExample(prompt="2 + 3 =", chosen=" 5, as everyone knows", rejected=" 6"),
    PreferenceExample(prompt="The capital of Peru is", chosen=" Lima", rejected=" Limerick"),
    PreferenceExample(prompt="Say it:", chosen=" it", rejected=" that"),
]


def encoded(location: str, examples: list[PreferenceExample]) -> list[Pair]:
    encoder = Encoder(load_tokenizer(location), 512)
    return [encoder.pair(example) for example in examples]


def trained_a_little(location: str) -> tuple[PeftModel, PeftModel]:
    """A model with a fresh adapter, and one with the same that has learned something."""
    made = []
    for spread in (0.0, 0.02):
        torch.manual_seed(0)
        base = load_model(location, torch.device("cpu"), torch.float32)
        model = new_adapter(base, LoraSettings(rank=4, alpha=8)).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name and spread:
                torch.nn.init.normal_(parameter, std=spread)
        made.append(model)
    return made[0], made[1]


def plain_answer(model: PeftModel, pair: Pair, which: int) -> torch.Tensor:
    """By transformers and PEFT alone: the log-probability of an answer, end of the turn included."""
    tokens = torch.tensor([pair.sequences[which].tokens])
    start = pair.sequences[which].targets[0]
    every = log_softmax(model(input_ids=tokens).logits[0], dim=-1)
    return every[range(start - 1, tokens.shape[1] - 1), tokens[0, start:]].sum()


def loss_of(engine: PlainEngine | PrefixEngine, pairs: list[Pair]) -> Loss:
    objective = DirectPreference(BETA)
    return objective.loss(pairs, engine.log_probabilities(objective.sequences(pairs)))


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert any(gradient.norm() > 0 for gradient in theirs.values())
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() <= 1e-5 * max(1.0, expected.norm()), name


@pytest.mark.parametrize(
    ("which", "engine"),
    [
        *itertools.product(["llama", "gpt2", "gemma2"], [PlainEngine, PrefixEngine]),
        pytest.param("embedded", PrefixEngine, marks=pytest.mark.slow),
    ],
)
def test_loss_gradients_and_rewards_are_the_formulas(
    tiny_models: dict[str, Path], which: str, engine: type[PlainEngine | PrefixEngine]
) -> None:
    location = locate(EMBEDDED) if which == "embedded" else str(tiny_models[which])
    fresh, model = trained_a_little(location)
    pairs = encoded(location, CHATS + TEXTS)
    margins, rewards = [], []
    for module in model.modules():  # the adapter's layers run by PEFT's own code here
        module.__dict__.pop("forward", None)
    for pair in pairs:
        with torch.no_grad(), model.disable_adapter():
            reference = [plain_answer(model, pair, i).item() for i in (0, 1)]
        gained = [plain_answer(model, pair, i) - reference[i] for i in (0, 1)]
        margins.append(BETA * (gained[0] - gained[1]))
        rewards.append([BETA * one.item() for one in gained])
    expected = -torch.stack([logsigmoid(margin) for margin in margins]).mean()
    expected.backward()
    theirs = gradients(model)

    _, model = trained_a_little(location)
    referred = with_reference(engine(base_of(fresh)), pairs, batch_tokens=64)
    loss = loss_of(engine(base_of(model)), referred)
    (loss.summed / len(pairs)).backward()
    assert loss.summed.item() / len(pairs) == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    assert_close(gradients(model), theirs)
    assert loss.rewards is not None
    found = rewards_of(loss.rewards, len(pairs))
    assert found.chosen == pytest.approx(sum(c for c, _ in rewards) / len(pairs), abs=1e-4)
    assert found.rejected == pytest.approx(sum(r for _, r in rewards) / len(pairs), abs=1e-4)
    assert found.accuracy == pytest.approx(sum(c > r for c, r in rewards) / len(pairs))


def norm_of(gradient: dict[str, torch.Tensor]) -> float:
    return torch.stack([one.norm() for one in gradient.values()]).norm().item()


@pytest.mark.peers
@pytest.mark.parametrize("which", ["llama", "embedded"])
def test_loss_gradients_and_rewards_are_trls(
    tiny_models: dict[str, Path], tmp_path: Path, which: str
) -> None:
    location = locate(EMBEDDED) if which == "embedded" else str(tiny_models[which])
    fresh, model = trained_a_little(location)
    save_adapter(model, tmp_path / "adapter", {})
    data = tmp_path / "preferences.jsonl"
    data.write_text(lines(TEXTS), encoding="utf-8")
    job = {
        "model": location,
        "adapter": str(tmp_path / "adapter"),
        "data": str(data),
        "beta": BETA,
        "gradients": str(tmp_path / "gradients.safetensors"),
    }
    done = subprocess.run(
        [*peer_command("trl_preferences.py", TRL), json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])

    pairs = encoded(location, TEXTS)
    assert [[s.tokens for s in pair.sequences] for pair in pairs] == theirs["tokens"]
    referred = with_reference(PrefixEngine(base_of(fresh)), pairs, batch_tokens=64)
    loss = loss_of(PrefixEngine(base_of(model)), referred)
    (loss.summed / len(pairs)).backward()
    assert loss.summed.item() / len(pairs) == pytest.approx(theirs["loss"], abs=1e-5)
    expected = load_file(tmp_path / "gradients.safetensors")
    ours = gradients(model)
    assert ours.keys() == expected.keys()
    apart = {name: ours[name] - expected[name] for name in ours}
    # Thirty layers in float32: of any single number the two are within 1e-5, of the whole within 1e-4.
    print("loss", loss.summed.item() / len(pairs) - theirs["loss"])
    print("largest", max(one.abs().max().item() for one in apart.values()))
    print("relative", norm_of(apart) / norm_of(expected))
    assert all(one.abs().max() <= 1e-5 for one in apart.values())
    assert norm_of(apart) <= 1e-4 * norm_of(expected)
    assert loss.rewards is not None
    found = rewards_of(loss.rewards, len(pairs))
    assert found.chosen == pytest.approx(theirs["rewards/chosen"], abs=1e-4)
    assert found.rejected == pytest.approx(theirs["rewards/rejected"], abs=1e-4)
    assert found.accuracy == pytest.approx(theirs["rewards/accuracies"])


def test_the_prompt_of_both_answers_is_computed_once(tiny_model: Path) -> None:
    fresh, model = trained_a_little(str(tiny_model))
    pairs = encoded(str(tiny_model), CHATS[:1] * 2)
    passes: list[int] = []
    for one in (fresh, model):
        base_of(one).get_input_embeddings().register_forward_hook(
            lambda _, given, __: passes.append(given[0].numel())
        )
    referred = with_reference(PrefixEngine(base_of(fresh)), pairs, batch_tokens=512)
    loss_of(PrefixEngine(base_of(model)), referred)
    prompt = pairs[0].chosen.targets[0]
    answers = sum(len(sequence.targets) - 1 for sequence in pairs[0].sequences)
    assert passes == [prompt + answers] * 2


# --- trainings --------------------------------------------------------------------------------------


def preferences_job(output: Path, *, starts_from: str | None = None, seed: int = 0) -> FineTuneJob:
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.parent / "preferences.jsonl"
    file.write_text(lines(CHATS), encoding="utf-8")
    return FineTuneJob(
        run_id="run",
        name=output.name,
        training_file=file,
        validation_file=file,
        loss_on="completion",
        seed=seed,
        starts_from=starts_from,
        output=output,
        method="dpo",
    )


def backend(model: Path, **training: object) -> LocalBackend:
    options = {"epochs": 4, "batch_size": 2, "checkpoint_seconds": 0.0} | training
    return LocalBackend(
        LocalSettings(
            model=str(model),
            device="cpu",
            lora=LoraSettings(rank=4, alpha=8),
            training=TrainingSettings.model_validate(options),
        )
    )


@pytest.mark.parametrize("starts_from_another", [False, True])
@pytest.mark.parametrize("stop_after", [1, 7])
def test_a_killed_training_goes_on_to_the_same_weights(
    tiny_model: Path, tmp_path: Path, stop_after: int, starts_from_another: bool
) -> None:
    start = None
    if starts_from_another:
        first = preferences_job(tmp_path / "start" / "arm", seed=5)
        start = backend(tiny_model, epochs=1).fine_tune(first, ignore).model
    whole = preferences_job(tmp_path / "whole" / "arm", starts_from=start)
    expected = backend(tiny_model).fine_tune(whole, ignore)
    stopped = preferences_job(tmp_path / "stopped" / "arm", starts_from=start)

    def stop(progress: Progress) -> None:
        if progress.done > stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend(tiny_model).fine_tune(stopped, stop)
    torch.manual_seed(99)
    seen: list[int] = []
    tuned = backend(tiny_model).fine_tune(stopped, lambda p: seen.append(p.done))
    assert seen[0] == stop_after
    assert tuned.training_curve == expected.training_curve
    assert_same_weights(whole.output, stopped.output)


def test_the_curve_has_losses_rewards_and_accuracy(tiny_model: Path, tmp_path: Path) -> None:
    tuned = backend(tiny_model, learning_rate=1e-2).fine_tune(
        preferences_job(tmp_path / "arm"), ignore
    )
    first, last = tuned.training_curve[0], tuned.training_curve[-1]
    # The reference is what training begins with, so that nothing is preferred yet: log 2.
    assert first.train_loss == pytest.approx(0.6931, abs=1e-3)
    assert first.rewards is not None
    assert abs(first.rewards.chosen) + abs(first.rewards.rejected) < 1e-2
    assert last.train_loss < 0.5
    assert last.rewards is not None
    assert last.rewards.chosen > last.rewards.rejected
    assert last.rewards.accuracy == 1.0
    losses = [p.validation_loss for p in tuned.training_curve if p.validation_loss is not None]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert tuned.hyperparameters["method"] == "dpo"
    assert tuned.hyperparameters["dpo_beta"] == 0.1


def test_the_reference_is_the_model_that_is_started_from(tiny_model: Path, tmp_path: Path) -> None:
    first = backend(tiny_model, learning_rate=1e-2).fine_tune(
        preferences_job(tmp_path / "first" / "arm"), ignore
    )
    again = preferences_job(tmp_path / "again" / "arm", starts_from=first.model)
    curve = backend(tiny_model).fine_tune(again, ignore).training_curve
    assert curve[0].train_loss == pytest.approx(0.6931, abs=1e-3)
    model = load_adapter(
        load_model(str(tiny_model), torch.device("cpu"), torch.float32),
        Path(first.model),
        trainable=False,
    ).eval()
    [pair] = with_reference(
        PrefixEngine(base_of(model)), encoded(str(tiny_model), CHATS[:1]), batch_tokens=64
    )
    with torch.no_grad():
        answers = [plain_answer(model, pair, which).item() for which in (0, 1)]
    assert list(pair.reference) == pytest.approx(answers, abs=1e-3)


def test_micro_batches_add_up_and_memory_that_runs_out_splits_a_batch(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, model = trained_a_little(str(tiny_model))
    pairs = with_reference(
        PrefixEngine(base_of(fresh)), encoded(str(tiny_model), CHATS), batch_tokens=64
    )

    def trainer() -> Trainer:
        settings = TrainingSettings(batch_size=5, epochs=1)
        passes = Alone(model, "on", torch.float32)
        return Trainer(passes, DirectPreference(BETA), pairs, [], settings, seed=0)

    whole = trainer()._gradients(pairs)
    expected = gradients(model)
    model.zero_grad()
    limited = trainer()
    real = limited._back
    most = 1

    def at_most(part: list[Learned], weight: int, count: int) -> Loss:
        if len(part) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(part, weight, count)

    monkeypatch.setattr(limited, "_back", at_most)
    split = limited._gradients(pairs)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert split.rewards is not None
    assert whole.rewards is not None
    assert split.rewards.chosen == pytest.approx(whole.rewards.chosen, rel=1e-4)
    assert split.rewards.accuracy == pytest.approx(whole.rewards.accuracy)
    assert_close(gradients(model), expected)
    most = 0
    with pytest.raises(DeviceMemoryError, match="out of memory on a single training example"):
        limited._gradients(pairs)


def test_a_job_is_known_by_its_method_and_beta(tiny_model: Path, tmp_path: Path) -> None:
    job = preferences_job(tmp_path / "arm")
    assert backend(tiny_model).identity(job) != backend(tiny_model, dpo_beta=0.2).identity(job)
    examples = tmp_path / "examples.jsonl"
    text = '{"prompt": "a", "completion": " b"}\n'
    examples.write_text(text, encoding="utf-8")
    plain = replace(job, method="supervised", training_file=examples, validation_file=None)
    assert backend(tiny_model).identity(plain) == backend(tiny_model, dpo_beta=0.2).identity(plain)


def test_an_estimate_counts_both_answers(tiny_model: Path, tmp_path: Path) -> None:
    job = preferences_job(tmp_path / "arm")
    estimate = backend(tiny_model).estimate(job)
    pairs = encoded(str(tiny_model), CHATS)
    in_all = sum(len(sequence.tokens) for pair in pairs for sequence in pair.sequences)
    assert estimate.tokens == 4 * in_all
    assert estimate.seconds is not None
    longer = backend(tiny_model, epochs=8).estimate(job).seconds
    # The reference's pass comes once.
    assert longer is not None
    assert estimate.seconds < longer < 2 * estimate.seconds


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"messages": []}', "messages: "),
        ('{"prompt": "a", "chosen": "b"}', "give 'input', 'preferred_output' and"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "both answers are the same"),
        (
            '{"input": {"messages": [{"role": "user", "content": "a"}]}, "preferred_output": [], '
            '"non_preferred_output": []}',
            "preferred_output: ",
        ),
        (
            '{"input": {"messages": [{"role": "user", "content": "a"}]}, "preferred_output": '
            '[{"role": "user", "content": "b"}], '
            '"non_preferred_output": [{"role": "assistant", "content": "c"}]}',
            "an output must be one message of the assistant",
        ),
        (
            '{"input": {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, '
            '"preferred_output": [{"role": "assistant", "content": "b"}], '
            '"non_preferred_output": [{"role": "assistant", "content": "c"}]}',
            "preferences with functions",
        ),
        (
            '{"input": {"messages": [{"role": "assistant", "content": "a"}]}, '
            '"preferred_output": [{"role": "assistant", "content": "b"}], '
            '"non_preferred_output": [{"role": "assistant", "content": "c"}]}',
            "its last message can't be the assistant's",
        ),
    ],
)
def test_a_line_that_is_no_preference_is_named(
    tiny_model: Path, tmp_path: Path, line: str, told: str
) -> None:
    job = preferences_job(tmp_path / "arm")
    good = job.training_file.read_text(encoding="utf-8").splitlines()[0]
    job.training_file.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"preferences\.jsonl, line 2: .*{told}") as caught:
        backend(tiny_model).fine_tune(job, ignore)
    assert "\n" not in str(caught.value)
