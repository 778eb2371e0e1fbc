"""/v1/fine_tuning/jobs"""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.fine_tuning_job import Hyperparameters

from backends.server.hyperparameters import with_hyperparameters
from backends.server.identifiers import new_id, now
from backends.server.job_requests import JobRequest
from backends.server.lists import listed, wire
from backends.server.metadata import matches, wanted_metadata
from backends.server.service import Parts

router = APIRouter(prefix="/v1/fine_tuning/jobs")


@router.post("")
def create(asked: JobRequest, parts: Parts) -> dict[str, Any]:
    """Queues a job."""
    job = FineTuningJob(
        id=new_id("ftjob-"),
        object="fine_tuning.job",
        created_at=now(),
        hyperparameters=Hyperparameters(),
        integrations=[],
        metadata=asked.metadata,
        model=parts.models.canonical(asked.model),
        organization_id=f"org-{parts.settings.organization}",
        result_files=[],
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        status="validating_files",
        training_file=asked.training_file,
        validation_file=asked.validation_file,
    )
    job = with_hyperparameters(job, asked.training_method, asked.wanted.model_dump())
    return wire(parts.jobs.add(job, asked.suffix or ""))


@router.get("")
def list_jobs(
    request: Request,
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The jobs, newest first, with all the metadata asked for."""
    wanted = wanted_metadata(request)
    return listed(
        parts.records.jobs,
        limit=limit,
        after=after,
        shown=lambda record: record.job,
        keep=lambda record: matches(record.job.metadata, wanted),
    )


@router.get("/{job_id}")
def retrieve(job_id: str, parts: Parts) -> dict[str, Any]:
    """A job as it stands."""
    return wire(parts.jobs.get(job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, parts: Parts) -> dict[str, Any]:
    """Stops a job for good."""
    return wire(parts.jobs.cancel(job_id))


@router.get("/{job_id}/events")
def events(
    job_id: str,
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """What happened to a job, newest first."""
    owner = parts.jobs.get(job_id).id
    return listed(parts.records.events, limit=limit, after=after, owner=owner)


@router.get("/{job_id}/checkpoints")
def checkpoints(
    job_id: str,
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> dict[str, Any]:
    """The models that a finished job has made, the last one first: those after its last epochs."""
    owner = parts.jobs.get(job_id).id
    return listed(parts.records.checkpoints, limit=limit, after=after, owner=owner)
