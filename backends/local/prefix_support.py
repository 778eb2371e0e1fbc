"""Whether a model may be run by the prefix engine: asked of the model itself, not of a list of names."""

import random

import torch
from transformers import PreTrainedModel

from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.projection import checked
from backends.local.sequences import TokenSequence

_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Settings of local attention that counts places in the input, not positions: a few tokens can't show it.
_OTHER_WINDOWS = ("window_size", "attention_window", "attention_chunk_size")
# Of the spread of the plain results (root mean square): in bfloat16 rounding alone came to 0.02-0.06 of
# it, ignored positions to 0.4 and more, ignored masks to 0.7 and more (embedded model, 6 draws).
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.15}


def obstacle(model: PreTrainedModel) -> str | None:
    """Why the prefix engine can't run this model, or None if it can.

    Some architectures take neither ready-made masks nor given positions (ALiBi, state-space layers,
    attention in chunks), and not all of them refuse. So a few tokens are computed both ways.

    Raises:
        ModelError: the model computes NaN either way.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    name = type(model).__name__
    if kinds - _LAYER_TYPES:
        return f"{name} has layers of other kinds ({', '.join(sorted(kinds - _LAYER_TYPES))})"
    if any(getattr(config, setting, None) for setting in _OTHER_WINDOWS):
        return f"{name} has windows of attention that count places in the input"
    was_training = model.training
    model.eval()
    try:
        same = _computes_the_same(model)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        return f"{name} takes no masks and positions of our own ({type(error).__name__})"
    finally:
        model.train(was_training)
    return None if same else f"{name} computes something else with masks and positions of our own"


@torch.no_grad()
def _computes_the_same(model: PreTrainedModel) -> bool:
    sequences = _probes(model.config.get_text_config().vocab_size)
    plain = checked(PlainEngine(model).log_probabilities(sequences))
    shared = PrefixEngine(model)
    at_once = shared.log_probabilities(sequences)
    parts = dict(item for batch in shared.stream(sequences, 16) for item in batch)
    streamed = torch.tensor([s.log_probability for i in range(len(parts)) for s in parts[i]])
    allowed = _TOLERANCE.get(model.dtype, 0.15) * plain.std()
    return all(
        bool((other.to(plain.device) - plain).square().mean().sqrt() <= allowed)
        for other in (at_once, streamed)
    )


def _probes(vocabulary: int) -> list[TokenSequence]:
    """A long branch and three short ones, of one stem; what is asked of them stands after the long one.

    There a token's place in the tree is far from its position, so that confusing them shows.
    """
    draw = random.Random(0)
    stem, *short = (draw.choices(range(1, vocabulary), k=n) for n in (4, 6, 6, 6))
    long = [*stem, 0, *draw.choices(range(vocabulary), k=40)]
    asked = [TokenSequence(stem + tokens, list(range(5, 10))) for tokens in short]
    return [TokenSequence(long, [len(long) - 1]), *asked]
