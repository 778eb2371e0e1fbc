"""Whether the server is up, which version it is, and what it counts."""

import importlib.metadata

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from backends.server.service import Parts

router = APIRouter()


@router.get("/health")
def health() -> dict[str, str]:
    """Up."""
    return {"status": "ok"}


@router.get("/version")
def version() -> dict[str, str]:
    """The version of the package."""
    return {"version": importlib.metadata.version("kaarel-bet")}


@router.get("/metrics")
def metrics(parts: Parts) -> Response:
    """Counters in Prometheus' text format."""
    return Response(parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)
