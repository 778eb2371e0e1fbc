"""LongRoPE: no result depends on what else is computed with it, short texts and long ones alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from backends.data import GenerationQuery
from backends.local.answers import answers_to
from backends.local.backend import LocalBackend
from backends.local.decoding import Batch, Decoder, Vocabulary
from backends.local.detokenising import TokenBytes
from backends.local.engine import Engine, choose_engine
from backends.local.models import load_model, load_tokenizer, locate
from backends.local.sampling import Sampling
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, PrefixSharing
from tests.models import EMBEDDED

LIMIT = 64
"""Tokens of the longest short text."""


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "phi3"
    tokenizer = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=512,
        original_max_position_embeddings=LIMIT,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [2.0, 5.0, 9.0, 20.0],
        },
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    Phi3ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def model(location: Path) -> PreTrainedModel:
    return load_model(str(location), torch.device("cpu"), torch.float32)


def texts(*lengths: int) -> list[list[int]]:
    """Of one beginning, so that they share it where they may."""
    tokens = torch.randint(100, 1000, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    return [[*tokens[:length], i] for i, length in enumerate(lengths)]


def alone(location: Path, tokens: Sequence[int]) -> torch.Tensor:
    """transformers' own log-probabilities after each token, the text being all that it is given."""
    theirs = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    with torch.inference_mode():
        return theirs(torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)


LENGTHS = (20, LIMIT - 1, LIMIT, LIMIT + 1, 100, 30, 150)


@pytest.mark.parametrize("sharing", ["on", "off"])
@pytest.mark.parametrize("batch_tokens", [17, 1000])
def test_scores_are_those_of_each_text_alone(
    model: PreTrainedModel, location: Path, sharing: PrefixSharing, batch_tokens: int
) -> None:
    engine = choose_engine(model, sharing)
    assert engine.shares_prefixes == (sharing == "on")
    sequences = [TokenSequence(tokens, [5, len(tokens) - 1]) for tokens in texts(*LENGTHS)]
    found = dict(item for part in engine.stream(sequences, batch_tokens) for item in part)
    with torch.no_grad():
        at_once = engine.log_probabilities(sequences).view(-1, 2)
    for i, sequence in enumerate(sequences):
        exact = alone(location, sequence.tokens[:-1])
        expected = [exact[p - 1, sequence.tokens[p]].item() for p in sequence.targets]
        assert [s.log_probability for s in found[i]] == pytest.approx(expected, abs=1e-4)
        assert at_once[i].tolist() == pytest.approx(expected, abs=1e-4)


def test_work_that_takes_turns_is_not_rotated_as_its_neighbour(
    model: PreTrainedModel, location: Path
) -> None:
    engine = choose_engine(model, "on")
    long, short = texts(150, 20)
    turns = engine.stream([TokenSequence(long, [150])], 17)
    next(turns)
    [[(_, [score])]] = list(engine.stream([TokenSequence(short, [20])], 100))
    exact = alone(location, short[:-1])
    assert score.log_probability == pytest.approx(exact[-1, short[-1]].item(), abs=1e-4)


@pytest.mark.parametrize("sharing", ["on", "off"])
def test_gradients_are_the_sums_of_those_of_each_text(
    model: PreTrainedModel, sharing: PrefixSharing
) -> None:
    model.train()
    engine = choose_engine(model, sharing)
    sequences = [TokenSequence(tokens, [5, len(tokens) - 1]) for tokens in texts(*LENGTHS)]

    def gradient(batches: list[list[TokenSequence]]) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            engine.log_probabilities(batch).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together, each = gradient([sequences]), gradient([[sequence] for sequence in sequences])
    assert (together - each).norm() <= 1e-4 * each.norm()


def started(
    model: PreTrainedModel, engine: Engine, prompts: list[list[int]], location: Path
) -> Batch:
    vocabulary = Vocabulary(TokenBytes(load_tokenizer(str(location))), frozenset())
    decoder = Decoder(model, engine, vocabulary, batch_tokens=16)
    rows = [answers_to(prompt, Sampling(max_tokens=9), vocabulary) for prompt in prompts]
    begun = dict(item for ready in decoder.start(rows) for item in ready)
    return Batch.joined([begun[i] for i in range(len(prompts))])


def test_texts_under_way_are_rotated_as_long_as_they_are(
    model: PreTrainedModel, location: Path
) -> None:
    # One stays short, two become long (at once and on the way), two are.
    prompts = texts(20, LIMIT - 1, LIMIT - 3, LIMIT, 100)
    batch = started(model, choose_engine(model, "on"), prompts, location)
    tokens = [row.tokens for row in batch.rows]
    for step in range(5):
        ours = batch.logits.log_softmax(-1)
        for i, prompt in enumerate(prompts):
            theirs = alone(location, [*prompt, *tokens[i]])[-1]
            torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=1e-4)
        for row in batch.rows:
            row.tokens.append(200 + step)
        batch.advance()
        assert [row.tokens for row in batch.rows] == tokens


def test_greedy_text_beyond_the_limit_is_that_of_transformers_own_generate(location: Path) -> None:
    backend = LocalBackend(LocalSettings(model=str(location), device="cpu"))
    tokenizer = AutoTokenizer.from_pretrained(location)
    prompts = {n: tokenizer.decode(texts(n)[0][:-1]) for n in (10, LIMIT - 4, 100)}
    queries = [GenerationQuery(id=str(n), prompt=p, max_tokens=12) for n, p in prompts.items()]
    ours = {r.id: r.texts for r in backend.generate(backend.base_model, queries)}
    theirs: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    for n, prompt in prompts.items():
        tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
        output = theirs.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=0)
        new = output[0, tokens.shape[1] :]
        assert ours[str(n)] == (tokenizer.decode(new, skip_special_tokens=True),)
