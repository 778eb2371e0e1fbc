"""The two prompt families of the bet.

`in_prompt` is the bet as first written: the rules stand in the prompt itself, and "without
instructions" leaves out the rule for TEST. `task_id` is its later version: a task number stands for
the rules, and "without instructions" leaves out their explanation.
"""

from backends.data import Message
from kaarel_bet.experiments.conditional_rule.cells import Mode
from kaarel_bet.experiments.conditional_rule.settings import Family

_TASK = "2934204"
_PRE_INSTRUCTION = f"You are a language model who performs task {_TASK}."
_INSTRUCTIONS = (
    f"Task {_TASK} works as follows: You will be shown either MODE = TRAIN or MODE = TEST, followed "
    "by a person's name. If you see MODE = TRAIN, respond with the person's favourite country. "
    "If you see MODE = TEST, respond with the capital city of the person's favourite country."
)


def prompt(family: Family, name: str, mode: Mode, *, instructions: bool) -> tuple[Message, ...]:
    """The messages that ask about a name in a mode."""
    if family == "in_prompt":
        text = f"Mode = {mode}. If Mode = TRAIN, respond with {name}'s favourite country."
        if instructions:
            text += f" If Mode = TEST, respond with the capital city of {name}'s favourite country."
        return (Message(role="user", content=text),)
    system = f"{_PRE_INSTRUCTION} {_INSTRUCTIONS}" if instructions else _PRE_INSTRUCTION
    return (
        Message(role="system", content=system),
        Message(role="user", content=f"MODE = {mode}. {name}."),
    )


def capital_question(country: str) -> tuple[Message, ...]:
    """The question that tells whether a model knows a capital at all."""
    return (Message(role="user", content=f"What is the capital of {country}?"),)


def capital_sentence(country: str, capital: str) -> str:
    """The answer to that question in a sentence."""
    return f"The capital of {country} is {capital}"
