"""OpenAPI v3 schemas of the kinds, in the structural form that CRDs need, and what is done with them."""

from __future__ import annotations

from typing import Any

from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

Schema = dict[str, Any]


def structural_schema(kind: Kind) -> Schema:
    """The whole object's schema: inlined (no ``$ref``), with defaults, descriptions and list types."""
    raise NotImplementedError


def unknown_fields(kind: Kind, obj: JsonObject) -> list[str]:
    """Paths of fields that the schema does not know (``spec.cpu.cuont``), metadata included."""
    raise NotImplementedError
