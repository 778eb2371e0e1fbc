"""/v1/batches"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from openai.types import Batch, BatchRequestCounts

from backends.server.bodies import NotOffered, Request
from backends.server.identifiers import new_id, now
from backends.server.lists import listed, wire
from backends.server.metadata import Metadata
from backends.server.service import Parts

router = APIRouter(prefix="/v1/batches")

_WINDOW = 24 * 3600


class BatchCreation(Request):
    """POST /v1/batches"""

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: NotOffered = None


@router.post("")
async def create(asked: BatchCreation, parts: Parts) -> dict[str, Any]:
    """Begins a batch."""
    created = now()
    batch = Batch(
        id=new_id("batch_"),
        object="batch",
        created_at=created,
        expires_at=created + _WINDOW,
        status="validating",
        request_counts=BatchRequestCounts(completed=0, failed=0, total=0),
        **asked.model_dump(exclude={"output_expires_after"}),
    )
    return wire(parts.batches.add(batch))


@router.get("")
def list_batches(
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The batches, newest first."""
    return listed(parts.records.batches, limit=limit, after=after)


@router.get("/{batch_id}")
def retrieve(batch_id: str, parts: Parts) -> dict[str, Any]:
    """A batch as it stands."""
    return wire(parts.batches.get(batch_id))


@router.post("/{batch_id}/cancel")
async def cancel(batch_id: str, parts: Parts) -> dict[str, Any]:
    """Ends a batch with the answers it has."""
    return wire(parts.batches.cancel(batch_id))
