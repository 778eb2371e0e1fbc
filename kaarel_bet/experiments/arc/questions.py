"""Which questions that need counting are trained on, and which are asked."""

from collections.abc import Sequence

from backends.data import TrainingExample
from backends.errors import SettingsError
from kaarel_bet.experiments.arc.counting import counting_examples
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.settings import CountingSettings


def draw_questions(
    by: CountingSettings, lengths: Lengths, seed: int
) -> tuple[Sequence[TrainingExample], Sequence[TrainingExample]]:
    """Chats to train on and chats to ask, about different grids, all within the limit.

    Raises:
        SettingsError: the grids are too large for the limit, or too small for so many to differ.
    """
    wanted = by.n_examples + by.n_test
    # Twice as many, as some are alike.
    drawn = counting_examples(2 * wanted, seed, lengths.encoding, by.max_side)
    different = {_grid(chat): chat for chat in drawn if lengths.example_fits(chat)}
    if len(different) < wanted:
        raise SettingsError(
            f"arc.counting: of {len(drawn)} grids {len(different)} differ and fit arc.max_tokens, not "
            f"the {wanted} of n_examples and n_test; change max_side, or lower these"
        )
    chats = list(different.values())[:wanted]
    return chats[: by.n_examples], chats[by.n_examples :]


def _grid(chat: TrainingExample) -> str:
    """The grid as text, which stands before the first question."""
    assert chat.messages is not None
    first = next(message for message in chat.messages if message.role == "user")
    return first.content.rpartition("\n\n")[0]
