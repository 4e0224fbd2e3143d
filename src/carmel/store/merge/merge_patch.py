"""JSON merge patch (RFC 7396)."""

from __future__ import annotations

from typing import Any

from carmel.resources.base import JsonObject


def merge_patch(target: JsonObject, patch: JsonObject) -> JsonObject:
    """``target`` with each member of ``patch`` merged in; ``null`` removes a member. The arguments stay as they are."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _merge(target: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return merge_patch(target if isinstance(target, dict) else {}, value)
