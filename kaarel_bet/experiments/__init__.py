"""Which class runs a bet. Only ARC's is not all said in its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaarel_bet.bet.schema import Bet, BetBase
from kaarel_bet.experiments.interface import Experiment


def kind_of(data: Mapping[str, Any]) -> type[BetBase]:
    """The type of a bet's file: ARC's has sets of tasks, where others have data, prompts and arms."""
    if "sets" not in data:
        return Bet
    from kaarel_bet.experiments.arc.settings import ArcBet

    return ArcBet


def open_experiment(bet: BetBase, folder: Path, seed: int) -> Experiment:
    """What runs a bet whose files are in `folder`."""
    # Imported here: other bets need not wait for it.
    if isinstance(bet, Bet):
        from kaarel_bet.bet.design import BetExperiment

        return BetExperiment(bet, folder, seed)
    from kaarel_bet.experiments.arc.experiment import Arc
    from kaarel_bet.experiments.arc.settings import ArcBet

    assert isinstance(bet, ArcBet)
    return Arc(bet, seed)
