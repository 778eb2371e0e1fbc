"""What OpenAI bills, in US dollars; other providers' prices are not known here.

Fine-tuning: https://platform.openai.com/docs/pricing#fine-tuning. A list that ages: `AS_OF` goes with every
number shown, and a finished job's `trained_tokens` says what was billed in the end.
"""

from dataclasses import dataclass

from backends.openai_api.models import base_name

AS_OF = "2026-11"
BATCH_DISCOUNT = 0.5
_PER = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens: in training, and asked of the base and of a tuned model."""

    training: float
    base_input: float
    base_output: float
    tuned_input: float
    tuned_output: float

    def of_training(self, tokens: int) -> float:
        """A fine-tune; tokens are counted once an epoch."""
        return self.training * tokens / _PER

    def of_asking(self, *, tuned: bool, input_tokens: int, output_tokens: int) -> float:
        """Requests to the base model or a tuned one."""
        into, out = self.base_input, self.base_output
        if tuned:
            into, out = self.tuned_input, self.tuned_output
        return (into * input_tokens + out * output_tokens) / _PER


_PRICES = {
    "gpt-4.1": Price(25.0, 2.0, 8.0, 3.0, 12.0),
    "gpt-4.1-mini": Price(5.0, 0.4, 1.6, 0.8, 3.2),
}


def price_of(model: str) -> Price | None:
    """The price of a model, or of the base that a tuned model was made from; None if it is not known."""
    name = base_name(model)
    # Snapshots are named by date: gpt-4.1-mini-2025-04-14.
    fitting = [known for known in _PRICES if name == known or name.startswith(f"{known}-20")]
    return _PRICES[max(fitting, key=len)] if fitting else None
