"""What the hosted service has and this server has not: said in plain words."""

from fastapi import APIRouter

from backends.server.errors import invalid

router = APIRouter()


@router.post("/v1/fine_tuning/jobs/{job_id}/pause")
@router.post("/v1/fine_tuning/jobs/{job_id}/resume")
def pause_or_resume(job_id: str) -> None:
    """A job goes on until it is done or cancelled."""
    raise invalid(
        f"Jobs can't be paused or resumed here: {job_id} goes on until it is done, or cancelled for good "
        f"(POST /v1/fine_tuning/jobs/{job_id}/cancel).",
        code="not_offered",
    )


@router.post("/v1/uploads")
@router.post("/v1/uploads/{rest:path}")
def upload() -> None:
    """Files come in one piece."""
    raise invalid(
        "Uploads in parts are not offered here: send the whole file to POST /v1/files.",
        code="not_offered",
    )
