"""Reading a patch, and applying those that need no owner of fields. Server-side apply is in ``apply``."""

from __future__ import annotations

from typing import Any

import orjson

from carmel.errors import BadRequest, TooLarge, UnsupportedMediaType
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.nesting import is_deeper
from carmel.resources.schema import structural_schema
from carmel.store.merge.json_patch import json_patch
from carmel.store.merge.merge_patch import merge_patch
from carmel.store.merge.strategic import strategic_patch
from carmel.store.protocol import PatchType

MAX_PATCH_BYTES = 1024 * 1024
MAX_DEPTH = 100


def patched(kind: Kind, current: JsonObject, document: bytes, patch_type: PatchType) -> JsonObject:
    """``current`` after the patch. Raises ``BadRequest`` or ``Invalid`` for a patch that cannot be applied.

    Kinds of the project's own group take no strategic merge patch, as custom resources do not.
    """
    patch = _json(document)
    if patch_type is PatchType.JSON:
        return json_patch(current, patch)
    if not isinstance(patch, dict):
        raise BadRequest("the patch must be a JSON object")
    if patch_type is PatchType.MERGE:
        return merge_patch(current, patch)
    if patch_type is PatchType.STRATEGIC and kind.group != "carmel.dev":
        return strategic_patch(structural_schema(kind), current, patch)
    accepted = ", ".join(one for one in PatchType if one is not PatchType.STRATEGIC)
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: " + accepted
    )


def configuration(document: bytes) -> JsonObject:
    """The configuration of a server-side apply, in JSON: whoever takes YAML has made JSON of it."""
    config = _json(document)
    if not isinstance(config, dict):
        raise BadRequest("the configuration to apply must be an object")
    return config


def _limit(document: bytes) -> None:
    if len(document) > MAX_PATCH_BYTES:
        raise TooLarge(f"the patch has {len(document)} bytes, more than {MAX_PATCH_BYTES}")


def _json(document: bytes) -> Any:
    _limit(document)
    try:
        patch = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the patch is not JSON: {error}") from None
    _check_depth(patch)
    return patch


def _check_depth(value: Any) -> None:
    if is_deeper(value, MAX_DEPTH):
        raise BadRequest(f"the patch is nested more than {MAX_DEPTH} levels deep")
