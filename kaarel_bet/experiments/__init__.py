"""The experiments by name. To add one: its settings and class here, and its section in config.yaml."""

from typing import Any

from backends.schema import Strict
from kaarel_bet.experiments.arc.experiment import Arc
from kaarel_bet.experiments.arc.settings import ArcSettings
from kaarel_bet.experiments.conditional_rule.experiment import ConditionalRule
from kaarel_bet.experiments.conditional_rule.settings import ConditionalRuleSettings
from kaarel_bet.experiments.interface import Experiment
from kaarel_bet.experiments.inverse_scaling.experiment import InverseScaling
from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings

SETTINGS: dict[str, type[Strict]] = {
    "conditional_rule": ConditionalRuleSettings,
    "inverse_scaling": InverseScalingSettings,
    "arc": ArcSettings,
}
"""Experiment name -> the type of its settings."""

_CLASSES = {"conditional_rule": ConditionalRule, "inverse_scaling": InverseScaling, "arc": Arc}


def open_experiment(name: str, settings: Any, seed: int) -> Experiment:  # noqa: ANN401
    """The named experiment with its settings (an instance of `SETTINGS[name]`)."""
    return _CLASSES[name](settings, seed)
