"""Patches as pure functions: what an object is after a patch of one of Kubernetes' formats."""

from __future__ import annotations

import orjson

from carmel.errors import BadRequest, UnsupportedMediaType
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.store.merge.json_patch import json_patch
from carmel.store.merge.merge_patch import merge_patch
from carmel.store.protocol import PatchType


def patched(kind: Kind, current: JsonObject, document: bytes, patch_type: PatchType) -> JsonObject:
    """``current`` after the patch. Raises ``BadRequest`` or ``Invalid`` for a patch that cannot be applied."""
    try:
        patch = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the patch is not JSON: {error}") from None
    if patch_type is PatchType.JSON:
        return json_patch(current, patch)
    if not isinstance(patch, dict):
        raise BadRequest("the patch must be a JSON object")
    if patch_type is PatchType.MERGE:
        return merge_patch(current, patch)
    raise UnsupportedMediaType(f"cannot patch {kind.resource} by {patch_type}")
