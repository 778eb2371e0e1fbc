"""What work is said to take: by hand where it can be, and by what doing it takes."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from backends.data import Message, ScoringQuery, TrainingExample
from backends.interface import FineTuneJob
from backends.local import costs
from backends.local.adapters import new_adapter
from backends.local.backend import LocalBackend
from backends.local.costs import Answering, Costs
from backends.local.prefix_tree import build_prefix_tree, tree_size
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings, TrainingSettings
from tests.models import ARCHITECTURES, EMBEDDED

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many operations and bytes a second, whoever else computes here."""
    monkeypatch.setattr(costs, "_product_speed", lambda *_: 1e9)
    monkeypatch.setattr(costs, "_reading_speed", lambda *_: 1e9)


def of(directory: Path, **settings: object) -> Costs:
    chosen = LocalSettings.model_validate({"model": str(directory), **settings})
    return Costs(chosen, str(directory), CPU, training=torch.float32, scoring=torch.float32)


def sequence(length: int, *, first: int = 1) -> TokenSequence:
    return TokenSequence([first, *range(2, length + 1)], [length - 1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_are_those_of_the_model_with_its_weights(
    tiny_models: dict[str, Path], architecture: str
) -> None:
    found = of(tiny_models[architecture])
    model = AutoModelForCausalLM.from_pretrained(tiny_models[architecture])
    assert found._shape.parameters == model.num_parameters()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    assert head is not None
    assert isinstance(embedding, torch.Tensor)
    tied = head.weight is embedding
    assert found._shape.body == model.num_parameters() - embedding.numel() * (1 if tied else 2)
    adapter = get_peft_model_state_dict(new_adapter(model, LoraSettings()))
    assert found._shape.adapter == sum(tensor.numel() for tensor in adapter.values())


def test_chosen_modules_alone_are_adapted(tiny_model: Path) -> None:
    lora = LoraSettings(target_modules=("q_proj",))
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapter = get_peft_model_state_dict(new_adapter(model, lora))
    found = of(tiny_model, lora=lora.model_dump())
    assert found._shape.adapter == sum(tensor.numel() for tensor in adapter.values())


def test_a_tree_has_the_size_that_it_is_said_to_have() -> None:
    sequences = [sequence(9), sequence(5), sequence(9), sequence(4, first=3)]
    assert tree_size(sequences) == len(build_prefix_tree(sequences)) == 8 + 3


def test_what_is_shared_takes_no_time_unless_nothing_may_be(tiny_model: Path) -> None:
    same, different = [sequence(100)] * 4, [sequence(100, first=n) for n in range(1000, 1004)]
    sharing, whole = of(tiny_model), of(tiny_model, prefix_sharing="off")
    once = sharing.of_scoring(different[:1]).seconds
    # What a prediction takes is not shared.
    assert sharing.of_scoring(same).seconds < 3 * once
    assert sharing.of_scoring(different).seconds == pytest.approx(4 * once)
    assert whole.of_scoring(same).seconds == pytest.approx(4 * once)
    dropout = of(tiny_model, lora={"dropout": 0.1})
    assert dropout.of_training(same, 0).seconds > 2 * sharing.of_training(same, 0).seconds


def test_training_takes_its_epochs_and_texts_their_tokens(tiny_model: Path) -> None:
    one, three = (of(tiny_model, training={"epochs": n}) for n in (1, 3))
    examples = [sequence(50), sequence(80)]
    once, thrice = one.of_training(examples, 0), three.of_training(examples, 0)
    assert thrice.seconds == pytest.approx(3 * once.seconds)
    assert thrice.memory_bytes == once.memory_bytes
    prompt = [sequence(10)]
    short, long = (one.of_answering(prompt, [Answering(10, 2, n)]) for n in (10, 100))
    assert long.seconds > 5 * short.seconds
    assert long.memory_bytes >= short.memory_bytes > 0


def test_shards_take_less_each_and_recomputing_more_time(tiny_model: Path) -> None:
    examples = [sequence(200, first=n) for n in range(1, 9)]
    one, shards = of(tiny_model), of(tiny_model, shard="fsdp", processes=2)
    # On the CPU, the estimate is of both processes together.
    weights = [found._weight_bytes(4) for found in (one, shards)]
    shape = one._shape
    assert weights[0] == 4 * shape.parameters
    in_layers = shape.body
    assert weights[1] == 4 * (shape.parameters // 2 + shape.parameters - in_layers + in_layers)
    each = shards.of_training(examples, 0).memory_bytes // 2 - weights[1]
    assert each < one.of_training(examples, 0).memory_bytes - weights[0]
    # Offloaded, on a GPU: what is gathered alone; on the CPU the parts are in the same memory.
    beside = of(tiny_model, shard="fsdp", processes=2, offload="cpu")
    assert beside._weight_bytes(4) == weights[1]
    on_gpu = shape.weight_bytes(4, beside._settings, 2, torch.device("cuda"))
    assert on_gpu == weights[1] - 4 * (shape.parameters // 2)
    again = of(tiny_model, training={"gradient_checkpointing": True})
    assert again.of_training(examples, 0).memory_bytes < one.of_training(examples, 0).memory_bytes
    assert again.of_training(examples, 0).seconds > one.of_training(examples, 0).seconds
    whole, halved = (found.of_scoring(examples).memory_bytes for found in (one, shards))
    assert halved - whole == pytest.approx(whole - weights[0] + 2 * weights[1] - weights[0])


def test_the_embedded_model_on_this_machine_takes_seconds_and_gigabytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    subject = LocalBackend(LocalSettings(model=EMBEDDED, training=TrainingSettings(epochs=2)))
    turns = (
        Message(role="user", content="Ann's country?"),
        Message(role="assistant", content="Peru"),
    )
    file = tmp_path / "train.jsonl"
    file.write_text(TrainingExample(messages=turns).model_dump_json(exclude_none=True) + "\n")
    job = FineTuneJob("run", "arm", file, None, "completion", 0, None, tmp_path / "arm")
    asked = [ScoringQuery(id="q", messages=turns[:1], candidates={"a": "Peru", "b": "Chad"})]
    for estimate in (subject.estimate(job), subject.estimate(asked)):
        assert estimate.seconds is not None
        assert estimate.memory_bytes is not None
        # 134,515,008 parameters; a fraction of a second, unless the machine is very busy.
        assert 0.001 < estimate.seconds < 60
        assert 2 * 134_515_008 < estimate.memory_bytes < 4e9
    assert subject._open is None


def test_texts_that_are_cut_are_counted(tiny_model: Path) -> None:
    subject = LocalBackend(LocalSettings(model=str(tiny_model), device="cpu"))
    short = ScoringQuery(id="a", prompt="One", candidates={"a": " two"})
    long = short.model_copy(update={"id": "b", "prompt": "word " * 600})
    assert subject.estimate([short, long, long]).cut == 2
