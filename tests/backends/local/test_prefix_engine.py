"""The prefix engine against the plain way: same losses, same gradients, same scores."""

import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from backends.errors import DeviceMemoryError
from backends.local import prefix_engine
from backends.local.adapters import base_of, new_adapter
from backends.local.engine import Engine
from backends.local.models import load_model, locate
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.sequences import TokenSequence
from backends.local.settings import LoraSettings
from tests.models import ARCHITECTURES, EMBEDDED

MODELS = (*ARCHITECTURES, "embedded")


def branching(n: int = 12) -> list[TokenSequence]:
    """Sequences that leave a common stem of 30 tokens at different places, one of them twice."""
    draw = random.Random(0)
    stem = draw.choices(range(100, 1000), k=30)
    made = []
    for i in range(n - 1):
        tokens = stem[: draw.randrange(0, 31)] + draw.choices(
            range(100, 1000), k=draw.randrange(2, 9)
        )
        learned = sorted(draw.sample(range(1, len(tokens)), k=min(3, len(tokens) - 1)))
        made.append(TokenSequence(tokens, learned if i % 2 else list(range(1, len(tokens)))))
    return [*made, made[1]]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> PreTrainedModel:
    location = locate(EMBEDDED) if request.param == "embedded" else str(tiny_models[request.param])
    return AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=MODELS)
def tuned(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> PeftModel:
    location = locate(EMBEDDED) if request.param == "embedded" else str(tiny_models[request.param])
    torch.manual_seed(0)
    base = load_model(location, torch.device("cpu"), torch.float32)
    tuned = new_adapter(base, LoraSettings(rank=4, alpha=8)).eval()
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # these start at 0, where half of the gradients vanish
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned


def gradients(tuned: PeftModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    tuned.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in tuned.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert len(ours) > 0
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() <= 1e-5 * expected.norm(), name


@pytest.mark.parametrize("multiple", [1, 16])
def test_loss_and_gradients_equal_those_of_plain_sequences(
    tuned: PeftModel, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rows are filled up, as they are in bfloat16, or not."""
    monkeypatch.setattr(prefix_engine, "rows_multiple", lambda _: multiple)
    base, sequences = base_of(tuned), branching()
    plain = -PlainEngine(base).log_probabilities(sequences)
    expected = gradients(tuned, plain.sum())
    shared = -PrefixEngine(base).log_probabilities(sequences)
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-5)
    assert shared.sum().item() == pytest.approx(plain.sum().item(), rel=1e-5)
    assert_same_gradients(gradients(tuned, shared.sum()), expected)


def test_the_plain_ways_loss_and_gradients_equal_transformers_own(tuned: PeftModel) -> None:
    """And PEFT's own: the adapter's layers run by PEFT's code here."""
    base, sequences = base_of(tuned), branching(5)
    ours = gradients(tuned, -PlainEngine(base).log_probabilities(sequences).sum())
    fused = {m: m.__dict__.pop("forward") for m in tuned.modules() if "forward" in m.__dict__}
    total = torch.zeros(())
    for sequence in sequences:
        learned = set(sequence.targets)
        labels = [t if i in learned else -100 for i, t in enumerate(sequence.tokens)]
        mean = base(input_ids=torch.tensor([sequence.tokens]), labels=torch.tensor([labels])).loss
        total = total + mean * len(learned)
    theirs = gradients(tuned, total)
    for module, forward in fused.items():
        module.forward = forward
    assert_same_gradients(ours, theirs)


@pytest.mark.parametrize(
    ("engine", "batch_tokens", "multiple"),
    [
        (PlainEngine, 7, 1),
        (PrefixEngine, 1, 1),
        (PrefixEngine, 7, 1),
        (PrefixEngine, 1000, 1),
        (PrefixEngine, 7, 16),
        (PrefixEngine, 1000, 16),
    ],
)
def test_scores_equal_those_of_plain_sequences(
    model: PreTrainedModel,
    engine: type[PlainEngine | PrefixEngine],
    batch_tokens: int,
    multiple: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefix_engine, "rows_multiple", lambda _: multiple)
    sequences = branching()
    with torch.no_grad():
        expected = [PlainEngine(model).log_probabilities([one]) for one in sequences]
    assert_streams(engine(model), sequences, expected, batch_tokens)


def assert_streams(
    engine: Engine, sequences: list[TokenSequence], expected: list[torch.Tensor], batch_tokens: int
) -> None:
    found = [item for batch in engine.stream(sequences, batch_tokens) for item in batch]
    assert sorted(index for index, _ in found) == list(range(len(sequences)))
    for index, scores in found:
        values = [score.log_probability for score in scores]
        torch.testing.assert_close(torch.tensor(values), expected[index], rtol=1e-5, atol=1e-5)


# --- what the engine promises to spend ----------------------------------------------------------------


@pytest.fixture
def tiny(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture
def computed(tiny: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(positions computed, positions projected to the vocabulary) of every forward pass."""
    passes = []
    real = tiny.forward

    def counted(*args: object, **options: object) -> object:
        output = real(*args, **options)
        inputs = options["input_ids"]
        assert isinstance(inputs, torch.Tensor)
        passes.append((inputs.numel(), output.logits.shape[1]))
        return output

    monkeypatch.setattr(tiny, "forward", counted)
    return passes


def test_a_shared_context_is_computed_once_over_the_whole_list(
    tiny: PreTrainedModel, computed: list[tuple[int, int]]
) -> None:
    context = list(range(100, 150))
    # 40 candidates of one token, and 20 of two tokens that share their first.
    sequences = [TokenSequence([*context, last], [50]) for last in range(40)]
    sequences += [TokenSequence([*context, 7, last], [50, 51]) for last in range(20)]
    assert sum(len(batch) for batch in PrefixEngine(tiny).stream(sequences, 16)) == 60
    assert sum(positions for positions, _ in computed) == 50 + 1
    assert sum(projected for _, projected in computed) == 1 + 1
    assert max(positions for positions, _ in computed) == 16


def test_memory_does_not_grow_with_the_number_of_sequences(
    tiny: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    real = tiny.forward

    def watched(*args: object, **options: object) -> object:
        output = real(*args, **options)
        lengths.append(output.past_key_values.get_seq_length())
        return output

    monkeypatch.setattr(tiny, "forward", watched)
    draw = random.Random(0)
    sequences = [TokenSequence(draw.choices(range(1000), k=20), [19]) for _ in range(100)]
    list(PrefixEngine(tiny).stream(sequences, 32))
    assert len(lengths) > 50
    assert max(lengths) <= 32 + 20


# --- memory that runs out -----------------------------------------------------------------------------


@pytest.mark.parametrize("fits", [1, 5, 31])
@pytest.mark.parametrize("engine", [PlainEngine, PrefixEngine])
def test_out_of_memory_halves_what_is_computed_at_once(
    tiny: PreTrainedModel,
    engine: type[PlainEngine | PrefixEngine],
    fits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sequences = branching()
    with torch.no_grad():
        expected = [PlainEngine(tiny).log_probabilities([one]) for one in sequences]
    limit = fits if engine is PrefixEngine else max(fits, 40)  # it computes no less than a sequence
    real = tiny.forward
    sizes = []

    def limited(*args: object, **options: object) -> object:
        inputs = options["input_ids"]
        assert isinstance(inputs, torch.Tensor)
        sizes.append(inputs.numel())
        if inputs.numel() > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **options)

    monkeypatch.setattr(tiny, "forward", limited)
    assert_streams(engine(tiny), sequences, expected, 200)
    assert max(sizes) > limit


@pytest.mark.parametrize("engine", [PlainEngine, PrefixEngine])
def test_what_never_fits_is_reported(
    tiny: PreTrainedModel,
    engine: type[PlainEngine | PrefixEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(**_: object) -> object:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(tiny, "forward", never)
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        list(engine(tiny).stream(branching(), 100))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tiny: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> object:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(tiny, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(PrefixEngine(tiny).stream(branching(), 100))
