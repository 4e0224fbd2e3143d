"""Objects under their schema: which fields they have, how two differ, what they are together.

The rules are those of structured merge: an object's members are merged one by one, a list is one value (``atomic``)
unless its schema makes it a ``set`` or a ``map`` by key fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carmel.store.merge.fields import FieldSet, Path, item_by_keys, item_by_value, member

Schema = Mapping[str, Any]
ANY: Schema = {}


class Untypable(ValueError):
    """The value is not what its schema's list type needs: an item without its keys, or twice."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Leaves that were added, changed and removed, with the objects and items around them that came or went."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet


def children(schema: Schema, value: Any) -> dict[str, Any] | None:
    """The parts that are owned one by one, by their step; ``None`` for a value that is owned as a whole.

    Raises ``Untypable``.
    """
    if isinstance(value, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return None
        return {member(name): child for name, child in value.items()}
    if isinstance(value, list) and schema.get("x-kubernetes-list-type") in {"map", "set"}:
        steps = [_item_step(schema, item) for item in value]
        if len(set(steps)) != len(steps):
            raise Untypable(f"duplicate entries in a list that has each once: {', '.join(sorted(steps))}"[:300])
        return dict(zip(steps, value, strict=True))
    return None


def _item_step(schema: Schema, item: Any) -> str:
    if schema["x-kubernetes-list-type"] == "set":
        return item_by_value(item)
    names = schema.get("x-kubernetes-list-map-keys", ())
    if not isinstance(item, dict) or any(item.get(name) is None for name in names):
        raise Untypable(f"an item of a list by key lacks its key: {', '.join(names)}")
    return item_by_keys({name: item[name] for name in names})


def child_schema(schema: Schema, step: str) -> Schema:
    """The schema of the part at ``step``."""
    found: Any
    if step.startswith("f:"):
        found = schema.get("properties", {}).get(step[2:]) or schema.get("additionalProperties")
    else:
        found = schema.get("items")
    return found if isinstance(found, dict) else ANY


def _declared(schema: Schema, step: str) -> bool:
    return step.startswith("f:") and step[2:] in schema.get("properties", {})


def lenient_children(schema: Schema, value: Any) -> dict[str, Any] | None:
    """As ``children``, with a list that breaks its own type owned as a whole."""
    try:
        return children(schema, value)
    except Untypable:
        return None


def field_set(schema: Schema, value: Any) -> FieldSet:
    """The fields that somebody who applies ``value`` claims. Raises ``Untypable``."""
    return frozenset(_claimed(schema, value, ()))


def _claimed(schema: Schema, value: Any, path: Path) -> Iterator[Path]:
    parts = children(schema, value)
    if parts is None:
        yield path
        return
    for step, child in parts.items():
        here = (*path, step)
        if not _declared(schema, step) or child in (None, {}):
            yield here
        yield from _claimed(child_schema(schema, step), child, here)


def compare(schema: Schema, old: Any, new: Any) -> Comparison:
    """How ``new`` differs from ``old``; ``None`` is absent."""
    sets: tuple[set[Path], set[Path], set[Path]] = set(), set(), set()
    _compare(schema, old, new, (), sets)
    return Comparison(*(frozenset(one) for one in sets))


def _compare(schema: Schema, old: Any, new: Any, path: Path, sets: tuple[set[Path], set[Path], set[Path]]) -> None:
    added, modified, removed = sets
    if old is None or new is None:
        (added if old is None else removed).add(path)
    left, right = lenient_children(schema, old), lenient_children(schema, new)
    if (left is None and old is not None) or (right is None and new is not None):
        if old is not None and new is not None and not same(old, new):
            modified.add(path)
        return
    left, right = left or {}, right or {}
    for step in {**left, **right}:
        if left.get(step) is not None or right.get(step) is not None:
            _compare(child_schema(schema, step), left.get(step), right.get(step), (*path, step), sets)


def same(left: Any, right: Any) -> bool:
    """Equal as JSON: ``true`` is not ``1``."""
    return type(left) is type(right) and left == right


def merge(schema: Schema, live: Any, config: Any) -> Any:
    """``live`` with everything of ``config`` in it. Items new in ``config`` come last. Raises ``Untypable``."""
    right = children(schema, config)
    left = lenient_children(schema, live) if type(live) is type(config) else None
    if right is None or left is None:
        return config
    merged = {
        step: merge(child_schema(schema, step), left[step], right[step]) if step in left and step in right else child
        for step, child in {**right, **left}.items()
    }
    ordered = {step: merged[step] for step in {**left, **right}}
    return _rebuilt(config, ordered)


def remove(schema: Schema, value: Any, gone: FieldSet) -> Any:
    """``value`` without the parts at ``gone``; what is left empty by that goes too (``None``)."""
    parts = lenient_children(schema, value)
    if not gone or parts is None:
        return value
    below: dict[str, set[Path]] = {}
    for path in gone:
        if path:
            below.setdefault(path[0], set()).add(path[1:])
    kept = {}
    for step, child in parts.items():
        inner = below.get(step)
        if inner is None:
            kept[step] = child
        elif () not in inner:
            rest = remove(child_schema(schema, step), child, frozenset(inner))
            if rest is not None:
                kept[step] = rest
    return _rebuilt(value, kept) if kept or not parts else None


def _rebuilt(like: Any, parts: dict[str, Any]) -> Any:
    if isinstance(like, dict):
        return {step[2:]: child for step, child in parts.items()}
    return list(parts.values())


def with_named_parents(schema: Schema, fields: FieldSet) -> FieldSet:
    """The set with every declared member that leads to one of its fields: so that a struct goes with its last field."""
    found = set(fields)
    for path in fields:
        here = schema
        for depth, step in enumerate(path):
            if _declared(here, step):
                found.add(path[: depth + 1])
            here = child_schema(here, step)
    return frozenset(found)


def known(schema: Schema, value: Any) -> Any:
    """``value`` without members that the schema does not know: they are not stored, so nobody owns them."""
    if isinstance(value, list):
        return [known(schema.get("items") or ANY, item) for item in value]
    if not isinstance(value, dict):
        return value
    names = schema.get("properties")
    return {
        name: known(child_schema(schema, member(name)), child)
        for name, child in value.items()
        if names is None or name in names or schema.get("x-kubernetes-preserve-unknown-fields")
    }
