"""The patch formats: the standards' own examples, limits, and properties that hold for every object."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jsonpatch
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.errors import BadRequest, CarmelError, Invalid, TooLarge, UnsupportedMediaType
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.schema import structural_schema
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.merge.json_patch import MAX_OPERATIONS, json_patch
from carmel.store.merge.merge_patch import merge_patch
from carmel.store.merge.patch import MAX_DEPTH, configuration, patched
from carmel.store.merge.strategic import strategic_patch
from carmel.store.protocol import PatchType

keys = st.sampled_from(["a", "b", "c", "d/e", "f~g", ""])
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("xyz", max_size=3)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
objects = st.dictionaries(keys, values, max_size=4)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A, as far as the whole is an object
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_examples(target: JsonObject, patch: JsonObject, result: JsonObject) -> None:
    assert merge_patch(target, patch) == result


@given(objects, objects)
def test_a_merge_patch_applies_once_for_all(target: JsonObject, patch: JsonObject) -> None:
    before = json.dumps([target, patch])
    merged = merge_patch(target, patch)
    assert merge_patch(merged, patch) == merged
    assert json.dumps([target, patch]) == before


@given(objects, objects)
def test_a_json_patch_leads_where_it_was_made_for(source: JsonObject, target: JsonObject) -> None:
    before = json.dumps(source)
    assert json_patch(source, jsonpatch.make_patch(source, target).patch) == target
    assert json.dumps(source) == before


operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "jump", ""])},
    optional={
        "path": st.sampled_from(["", "/", "/a", "/a/0", "/a/-", "/b/c", "a", "/d~1e", "/f~2", "/a/01"]) | scalars,
        "from": st.sampled_from(["", "/a", "/b"]) | scalars,
        "value": values,
    },
)


@given(objects, st.lists(operations, max_size=4))
def test_no_json_patch_breaks_it(target: JsonObject, patch: list[Any]) -> None:
    before = json.dumps(target)
    with suppress(BadRequest, Invalid):
        assert isinstance(json_patch(target, patch), dict)
    assert json.dumps(target) == before


def test_a_json_patch_is_bounded() -> None:
    with pytest.raises(TooLarge):
        json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * (MAX_OPERATIONS + 1))
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{index}"} for index in range(100)]
    with pytest.raises(TooLarge):
        json_patch({"a": {"x": "y"}}, doubling)
    with pytest.raises(TooLarge):
        json_patch({}, [{"op": "add", "path": "/a" * 5000, "value": 1}])


@pytest.mark.parametrize("patch_type", [PatchType.MERGE, PatchType.JSON, PatchType.STRATEGIC])
def test_a_patch_is_neither_too_deep_nor_too_large(patch_type: PatchType) -> None:
    deep = b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)
    for document, error in ((deep, BadRequest), (b'{"a":"' + b"x" * 2**20 + b'"}', TooLarge), (b"\xff", BadRequest)):
        with pytest.raises(error):
            patched(SECRET, {}, document, patch_type)
        with pytest.raises(error):
            configuration(document)


NAMES = [{"name": "a", "v": 1}, {"name": "b", "v": 2}, {"name": "c", "v": 3}]
SCHEMA = {
    "properties": {
        "map": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        "set": {"x-kubernetes-list-type": "set"},
        "atomic": {"type": "array"},
        "deep": {"properties": {"map": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}},
    }
}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"map": NAMES}, {"map": [{"name": "b", "v": 9}]}, {"map": [NAMES[0], {"name": "b", "v": 9}, NAMES[2]]}),
        ({"map": NAMES}, {"map": [{"name": "b", "$patch": "delete"}]}, {"map": [NAMES[0], NAMES[2]]}),
        ({"map": NAMES}, {"map": [{"name": "x"}, {"$patch": "replace"}]}, {"map": [{"name": "x"}]}),
        ({"map": NAMES[:1]}, {"map": [{"name": "b"}]}, {"map": [NAMES[0], {"name": "b"}]}),
        (
            {"map": NAMES},
            {"$setElementOrder/map": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
            {"map": [NAMES[2], NAMES[0], NAMES[1]]},
        ),
        (
            {"map": NAMES},
            {"$setElementOrder/map": [{"name": "c"}, {"name": "a"}]},
            {"map": [NAMES[2], NAMES[1], NAMES[0]]},
        ),
        ({"set": ["a", "b"]}, {"set": ["b", "c", "c"]}, {"set": ["a", "b", "c"]}),
        ({"set": ["a", "b"]}, {"$deleteFromPrimitiveList/set": ["a"]}, {"set": ["b"]}),
        ({"set": ["a", "b"]}, {"$setElementOrder/set": ["b", "a"]}, {"set": ["b", "a"]}),
        ({"set": ["a"]}, {"set": ["b"], "$setElementOrder/set": ["b", "a"]}, {"set": ["b", "a"]}),
        ({"atomic": [1, 2]}, {"atomic": [3]}, {"atomic": [3]}),
        ({"x": {"a": 1, "b": 2}}, {"x": {"$patch": "replace", "c": 3}}, {"x": {"c": 3}}),
        ({"x": {"a": 1}, "y": 1}, {"x": {"$patch": "delete"}}, {"y": 1}),
        ({"x": {"a": 1, "b": 2}}, {"x": {"$retainKeys": ["b", "c"], "c": 3}}, {"x": {"b": 2, "c": 3}}),
        ({"x": {"a": 1}}, {"x": {"a": None}}, {"x": {}}),
        (
            {"deep": {"map": NAMES[:1]}},
            {"deep": {"map": [{"name": "a", "v": None}]}},
            {"deep": {"map": [{"name": "a"}]}},
        ),
    ],
)
def test_strategic_merge(target: JsonObject, patch: JsonObject, result: JsonObject) -> None:
    before = orjson.dumps([target, patch])
    assert strategic_patch(SCHEMA, target, patch) == result
    assert orjson.dumps([target, patch]) == before


@pytest.mark.parametrize(
    "patch",
    [
        {"$patch": "explode"},
        {"$unknown": 1},
        {"$retainKeys": "a"},
        {"$setElementOrder/map": "a"},
        {"$deleteFromPrimitiveList/set": [1]},
        {"map": [{"v": 1}]},
        {"map": ["a"]},
    ],
)
def test_strategic_merge_that_cannot_be(patch: JsonObject) -> None:
    with pytest.raises(BadRequest):
        strategic_patch(SCHEMA, {"map": NAMES, "set": ["a"]}, patch)


directives = st.sampled_from(
    ["$patch", "$retainKeys", "$setElementOrder/map", "$deleteFromPrimitiveList/set", "map", "set"]
)
strategic_patches = st.dictionaries(
    directives, values | st.lists(st.dictionaries(st.just("name"), values, max_size=1), max_size=3), max_size=3
)


@given(st.fixed_dictionaries({}, optional={"map": values, "set": values}), strategic_patches)
def test_no_strategic_patch_breaks_it(target: JsonObject, patch: JsonObject) -> None:
    with suppress(CarmelError):
        assert isinstance(strategic_patch(SCHEMA, target, patch), dict)


def test_what_kubectl_sends_for_a_namespace() -> None:
    live = {"metadata": {"name": "a", "labels": {"x": "1"}, "finalizers": ["a.b/c"]}}
    patch = b'{"metadata":{"$setElementOrder/finalizers":["d.e/f","a.b/c"],"finalizers":["d.e/f"],"labels":{"x":null}}}'
    merged = patched(NAMESPACE, live, patch, PatchType.STRATEGIC)
    assert merged == {"metadata": {"name": "a", "labels": {}, "finalizers": ["d.e/f", "a.b/c"]}}
    assert structural_schema(NAMESPACE)["properties"]["metadata"]


def test_resources_of_our_own_take_no_strategic_patch() -> None:
    with pytest.raises(UnsupportedMediaType):
        patched(VIRTUAL_MACHINE, {}, b"{}", PatchType.STRATEGIC)
