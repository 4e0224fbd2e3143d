"""Which fields a NIC of another version knows: it publishes the schemas of its kinds (OpenAPI v3), to its host too.

What it does not know its API leaves out, as Kubernetes' does. Who compares what it has with what it should have must
leave the same out, or never comes to an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carmel.client.api import Client
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject, dig
from carmel.errors import NotFound

Schemas = Mapping[str, JsonObject]
"""By kind (``Network``), the schema of the whole object. A kind that is not there is taken to be known in full."""


def read_schemas(client: Client) -> Schemas:
    """What whoever answers publishes; nothing, where it publishes none. Raises what it answers otherwise."""
    try:
        document = client.get_json(f"/openapi/v3/apis/{CARMEL_API}")
    except NotFound:
        return {}
    listed = dig(document, "components", "schemas")
    found: dict[str, JsonObject] = {}
    for schema in listed.values() if isinstance(listed, dict) else ():
        if isinstance(schema, dict):
            for kind in schema.get("x-kubernetes-group-version-kind") or ():
                found[str(kind.get("kind"))] = schema
    return found


def known_part(schema: JsonObject, value: Any, path: str = "") -> tuple[Any, list[str]]:
    """``value`` without the fields that ``schema`` does not have, and the paths of those, in document order."""
    if isinstance(value, list):
        inside = schema.get("items")
        read = [
            known_part(inside if isinstance(inside, dict) else {}, one, f"{path}[{n}]") for n, one in enumerate(value)
        ]
        return [kept for kept, _ in read], [unknown for _, some in read for unknown in some]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value, []
    kept: JsonObject = {}
    left_out: list[str] = []
    for key, child in value.items():
        where = f"{path}.{key}" if path else key
        if key not in properties:
            left_out.append(where)
            continue
        kept[key], more = known_part(properties[key], child, where)
        left_out += more
    return kept, left_out
