"""Strategic merge patch: a merge patch that knows which lists are maps and sets (Kubernetes, "Update API Objects in
Place Using kubectl patch"). Which they are is read from the schema's list types.

Directives: ``$patch: replace | delete | merge`` in an object or item, ``$retainKeys``, ``$setElementOrder/<list>``,
``$deleteFromPrimitiveList/<list>``.
"""

from __future__ import annotations

from typing import Any

from carmel.errors import BadRequest
from carmel.resources.base import JsonObject
from carmel.store.merge.fields import member
from carmel.store.merge.typed import Schema, child_schema

_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_patch(schema: Schema, target: JsonObject, patch: JsonObject) -> JsonObject:
    """``target`` after ``patch``; the arguments stay as they are. Raises ``BadRequest`` for a wrong directive."""
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive not in (None, "replace", "merge"):
        raise BadRequest(f"unknown directive $patch: {str(directive)[:40]!r}", field="$patch")
    merged = {} if directive == "replace" else dict(target)
    if (retained := patch.get("$retainKeys")) is not None:
        names = _strings("$retainKeys", retained)
        merged = {name: value for name, value in merged.items() if name in names}
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_member(child_schema(schema, member(name)), merged, name, value)
    for name, value in patch.items():
        if name.startswith(_DELETE):
            gone = _strings(name, value)
            _change_list(
                merged, name.removeprefix(_DELETE), lambda items, gone=gone: [i for i in items if i not in gone]
            )
    for name, value in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            _set_order(child_schema(schema, member(field)), merged, field, value)
        elif name.startswith("$") and not name.startswith(_DELETE) and name not in {"$patch", "$retainKeys"}:
            raise BadRequest(f"unknown directive {name[:80]!r} in a strategic merge patch", field=name[:80])
    return merged


def _strings(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRequest(f"{field} must be a list of strings", field=field)
    return value


def _merge_member(schema: Schema, merged: JsonObject, name: str, value: Any) -> None:
    present = merged.get(name)
    if value is None:
        merged.pop(name, None)
    elif isinstance(value, dict):
        if value.get("$patch") == "delete":
            merged.pop(name, None)
        else:
            merged[name] = strategic_patch(schema, present if isinstance(present, dict) else {}, value)
    elif isinstance(value, list):
        merged[name] = _merge_list(schema, present if isinstance(present, list) else [], value)
    else:
        merged[name] = value


def _merge_list(schema: Schema, present: list[Any], patch: list[Any]) -> list[Any]:
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "set":
        return present + [item for index, item in enumerate(patch) if item not in present and item not in patch[:index]]
    if list_type != "map":
        return patch
    key = schema["x-kubernetes-list-map-keys"][0]
    if any(not isinstance(item, dict) for item in patch):
        raise BadRequest(f"a strategic merge patch of a list by {key!r} has objects as items")
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    items = schema.get("items", {})
    merged = list(present)
    for item in patch:
        if key not in item:
            raise BadRequest(f"an item of a strategic merge patch lacks its merge key {key!r}")
        index = next((at for at, one in enumerate(merged) if isinstance(one, dict) and one.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            merged = [one for at, one in enumerate(merged) if at != index]
        elif index is None:
            merged.append(strategic_patch(items, {}, item))
        else:
            merged[index] = strategic_patch(items, merged[index], item)
    return merged


def _change_list(merged: JsonObject, name: str, change: Any) -> None:
    if isinstance(merged.get(name), list):
        merged[name] = change(merged[name])


def _set_order(schema: Schema, merged: JsonObject, name: str, order: Any) -> None:
    """Items named in the order come in it; the others stay where they are, before the first that follows them."""
    if not isinstance(order, list):
        raise BadRequest(f"{_ORDER}{name} must be a list", field=f"{_ORDER}{name}"[:80])
    keys = schema.get("x-kubernetes-list-map-keys")

    def identity(item: Any) -> Any:
        return item.get(keys[0]) if keys and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]

    def sort(items: list[Any]) -> list[Any]:
        ordered = iter(sorted((i for i in items if identity(i) in wanted), key=lambda i: wanted.index(identity(i))))
        return [next(ordered) if identity(item) in wanted else item for item in items]

    _change_list(merged, name, sort)
