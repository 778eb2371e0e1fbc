"""/v1/files"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from openai.types import FileDeleted
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from backends.server.errors import invalid
from backends.server.files import Purpose
from backends.server.lists import listed, wire
from backends.server.service import Parts

router = APIRouter(prefix="/v1/files")

_UPLOADED: tuple[Purpose, ...] = ("fine-tune", "batch")
_LIFETIME = range(3600, 2_592_001)  # an hour to 30 days


@router.post("")
async def create(request: Request, parts: Parts) -> dict[str, Any]:
    """Keeps an uploaded file."""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid("Missing required parameter: 'file'.", "file")
        purpose = _purpose(form)
        lifetime = _lifetime(form)
        kept = await run_in_threadpool(
            parts.files.upload, file.filename or "", file.file, purpose, lifetime
        )
    return wire(kept)


@router.get("")
def list_files(
    parts: Parts,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """The files, newest first."""
    parts.files.remove_expired()
    return listed(
        parts.records.files,
        limit=limit,
        after=after,
        oldest_first=order == "asc",
        keep=lambda file: purpose is None or file.purpose == purpose,
    )


@router.get("/{file_id}")
def retrieve(file_id: str, parts: Parts) -> dict[str, Any]:
    """What is known of a file."""
    return wire(parts.files.get(file_id))


@router.get("/{file_id}/content")
def content(file_id: str, parts: Parts) -> FileResponse:
    """The bytes of a file."""
    return FileResponse(parts.files.path(file_id), media_type="application/octet-stream")


@router.delete("/{file_id}")
def delete(file_id: str, parts: Parts) -> FileDeleted:
    """Deletes a file; jobs made with it keep their own copy."""
    parts.files.delete(file_id)
    return FileDeleted(id=file_id, object="file", deleted=True)


def _purpose(form: FormData) -> Purpose:
    given = form.get("purpose")
    for purpose in _UPLOADED:
        if given == purpose:
            return purpose
    raise invalid(f"'purpose' must be one of {', '.join(_UPLOADED)}.", "purpose")


def _lifetime(form: FormData) -> int | None:
    given = form.get("expires_after[seconds]")
    if given is None:
        return None
    seconds = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 9 else 0
    if seconds not in _LIFETIME or form.get("expires_after[anchor]", "created_at") != "created_at":
        raise invalid(
            f"'expires_after' must be {_LIFETIME[0]} to {_LIFETIME[-1]} seconds from 'created_at'.",
            "expires_after",
        )
    return seconds
