"""The lists of the wire format and how they are paged through."""

from collections.abc import Callable
from typing import Any

from openai.types.fine_tuning import FineTuningJob
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


_NULL_UNTIL_KNOWN = (
    *("error", "estimated_finish", "fine_tuned_model", "finished_at"),
    *("trained_tokens", "validation_file"),
)
"""Of a job: what the wire has even where there is nothing to say."""


def wire(answer: BaseModel) -> dict[str, Any]:
    """An object as JSON has it: without what there is nothing to say of, but for a job's own nulls."""
    said = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dict.fromkeys(_NULL_UNTIL_KNOWN) | said if isinstance(answer, FineTuningJob) else said
