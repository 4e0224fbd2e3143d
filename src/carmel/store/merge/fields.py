"""Sets of fields as server-side apply keeps them (``FieldsV1``, Kubernetes API reference).

A path is a tuple of steps, each in the words of ``FieldsV1``: ``f:spec`` is a member, ``k:{"name":"root"}`` a list
item by its keys, ``v:"x"`` an item of a set by its value. A set of fields is a frozenset of such paths, so that union,
intersection and difference are Python's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from carmel.resources.base import JsonObject

Path = tuple[str, ...]
FieldSet = frozenset[Path]
NOTHING: FieldSet = frozenset()
MAX_DEPTH = 64


def decode(fields: Any) -> FieldSet:
    """The set that ``fieldsV1`` writes. Raises ``ValueError`` for anything else."""
    return frozenset(_decode(fields, ()))


def _decode(node: Any, path: Path) -> Iterator[Path]:
    if not isinstance(node, dict) or len(path) > MAX_DEPTH:
        raise ValueError(f"not a set of fields at {show(path)}")
    for step, child in node.items():
        if step == ".":
            yield path
            continue
        here = (*path, _canonical(step))
        if child == {}:
            yield here
        else:
            yield from _decode(child, here)


def _canonical(step: str) -> str:
    kind, colon, rest = step.partition(":")
    if not colon or kind not in {"f", "k", "v", "i"}:
        raise ValueError(f"{step[:40]!r} is not a step of a field's path")
    return step if kind in {"f", "i"} else f"{kind}:{_json(orjson.loads(rest))}"


def encode(fields: FieldSet) -> JsonObject:
    """``fieldsV1`` of a set."""
    tree: JsonObject = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node["."] = {}
    return _without_leaf_dots(tree)


def _without_leaf_dots(node: JsonObject) -> JsonObject:
    return {} if node.keys() == {"."} else {step: _without_leaf_dots(child) for step, child in node.items()}


def member(name: str) -> str:
    """The step to an object's member."""
    return f"f:{name}"


def item_by_keys(keys: JsonObject) -> str:
    """The step to the item of a list that is a map."""
    return f"k:{_json(keys)}"


def item_by_value(value: Any) -> str:
    """The step to the item of a list that is a set."""
    return f"v:{_json(value)}"


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def show(path: Path) -> str:
    """A path as Kubernetes prints it: ``.spec.disks[name="root"].size``."""
    shown = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            shown += f".{rest}"
        elif kind == "k":
            keys = ",".join(f"{key}={_json(value)}" for key, value in orjson.loads(rest).items())
            shown += f"[{keys}]"
        else:
            shown += f"[={rest}]" if kind == "v" else f"[{rest}]"
    return shown
