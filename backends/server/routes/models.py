"""/v1/models"""

from typing import Any

from fastapi import APIRouter
from openai.types import ModelDeleted

from backends.server.lists import wire
from backends.server.service import Parts

router = APIRouter(prefix="/v1/models")


@router.get("")
def list_models(parts: Parts) -> dict[str, Any]:
    """The base model, its other names, and those tuned here."""
    models = [*parts.models.base_models(), *parts.models.tuned_models()]
    return {"object": "list", "data": [wire(model) for model in models]}


@router.get("/{name:path}")
def retrieve(name: str, parts: Parts) -> dict[str, Any]:
    """One of them."""
    return wire(parts.models.model(name))


@router.delete("/{name:path}")
def delete(name: str, parts: Parts) -> ModelDeleted:
    """Deletes a model tuned here, and its weights."""
    parts.inference.forget(parts.models.delete(name))
    return ModelDeleted(id=name, object="model", deleted=True)
