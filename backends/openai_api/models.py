"""The names of models on the wire."""


def is_tuned(model: str) -> bool:
    """Whether the name is a fine-tuned model's: ft:<base>:<organisation>:<suffix>:<id>."""
    return model.startswith("ft:")


def base_name(model: str) -> str:
    """The base model that a model's name tells of."""
    return model.split(":")[1] if is_tuned(model) else model
