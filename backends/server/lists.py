"""The lists of the wire format and how they are paged through."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from backends.server.errors import invalid
from backends.server.store import Collection, Document


def listed(
    collection: Collection[Document],
    *,
    limit: int,
    after: str | None,
    shown: Callable[[Document], BaseModel] = lambda document: document,
    owner: str = "",
    oldest_first: bool = False,
    keep: Callable[[Document], bool] = lambda _: True,
) -> dict[str, Any]:
    """One page, as the SDK's cursor pages read it; `shown` is what the wire sees of a document."""
    try:
        page = collection.page(
            limit=limit, after=after, owner=owner, oldest_first=oldest_first, keep=keep
        )
    except KeyError:
        raise invalid(f"No such object: {after}", "after") from None
    data = [wire(shown(document)) for document in page.documents]
    return {
        "object": "list",
        "data": data,
        "has_more": page.has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def generated(answer: BaseModel) -> dict[str, Any]:
    """An answer of the model as JSON has it: what it was not given is left out."""
    # The SDK declares no null among log-probabilities, though the first token of an echo has none.
    return answer.model_dump(mode="json", by_alias=True, warnings=False, exclude_unset=True)


def wire(answer: BaseModel) -> dict[str, Any]:
    """An object as JSON has it."""
    return answer.model_dump(mode="json", by_alias=True)
