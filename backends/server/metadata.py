"""The key-value pairs that can be attached to jobs and batches, and the filter for them."""

from typing import Annotated

from fastapi import Request
from pydantic import Field

Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]


def wanted_metadata(request: Request) -> dict[str, str] | None:
    """What `metadata[key]=value` in the query asks for; None for `metadata=null`."""
    query = request.query_params
    if query.get("metadata") == "null":
        return None
    return {
        key.removeprefix("metadata[")[:-1]: value
        for key, value in query.multi_items()
        if key.startswith("metadata[") and key.endswith("]")
    }


def matches(metadata: dict[str, str] | None, wanted: dict[str, str] | None) -> bool:
    """Whether an object with this metadata is wanted."""
    if wanted is None:
        return not metadata
    return all((metadata or {}).get(key) == value for key, value in wanted.items())
