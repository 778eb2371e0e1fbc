"""Identifiers and times as the wire format has them."""

import secrets
import time


def new_id(prefix: str) -> str:
    """An identifier that nobody can guess, such as `file-3f2a...`; its letters are safe in a path."""
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> int:
    """Unix time in whole seconds."""
    return int(time.time())
