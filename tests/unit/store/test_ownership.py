"""Server-side apply as a function: what holds for every object, whatever the managers want."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.resources.base import JsonObject
from carmel.store.merge import fields, managers
from carmel.store.merge.apply import Application, applier, apply
from carmel.store.merge.managers import MAX_UPDATERS, UPDATE, Manager, Owned
from carmel.store.merge.typed import compare, field_set, known, merge

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SCHEMA: JsonObject = {
    "properties": {
        "spec": {
            "properties": {
                "count": {"type": "integer"},
                "labels": {"additionalProperties": {"type": "string"}},
                "names": {"type": "array", "x-kubernetes-list-type": "set"},
                "atomic": {"type": "array"},
                "disks": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
                },
            }
        }
    }
}
small = st.sampled_from("abc")
disks = st.dictionaries(small, st.integers(0, 2) | st.none(), max_size=3).map(
    lambda sizes: [{"name": n} if size is None else {"name": n, "size": size} for n, size in sizes.items()]
)
specs = st.fixed_dictionaries(
    {"count": st.integers(0, 2)},
    optional={
        "labels": st.dictionaries(small, small, min_size=1, max_size=2),
        "names": st.lists(small, unique=True, min_size=1, max_size=3),
        "atomic": st.lists(small, min_size=1, max_size=2),
        "disks": disks.filter(bool),
    },
)
configs = specs.map(lambda spec: {"spec": spec})


def by_force(name: str, live: JsonObject, owners: Any, config: JsonObject) -> tuple[JsonObject, dict[Manager, Owned]]:
    application = Application(applier(name, "v1", ""), config, True, False)
    return apply(SCHEMA, live, owners, application, lambda merged: merged, NOW)


@given(configs, configs)
def test_what_is_applied_is_there_and_owned(first: JsonObject, second: JsonObject) -> None:
    live, owners = by_force("one", {}, {}, first)
    live, owners = by_force("two", live, owners, second)
    assert merge(SCHEMA, live, second) == live
    assert owners[applier("two", "v1", "")].fields == field_set(SCHEMA, second)
    again = by_force("two", live, owners, second)
    assert again == (live, owners), "a second time changes nothing"


@given(configs, configs)
def test_one_manager_alone_decides_it_all(first: JsonObject, second: JsonObject) -> None:
    live, owners = by_force("one", {}, {}, first)
    live, _ = by_force("one", live, owners, second)
    differing = compare(SCHEMA, second, live)
    assert not differing.removed
    assert not differing.modified
    assert not differing.added


@given(configs, configs)
def test_leaving_takes_nothing_from_others(first: JsonObject, second: JsonObject) -> None:
    live, owners = by_force("one", {}, {}, first)
    live, owners = by_force("two", live, owners, second)
    left, remaining = by_force("one", live, owners, {"spec": {"count": second["spec"]["count"]}})
    assert merge(SCHEMA, left, second) == left
    assert remaining[applier("two", "v1", "")].fields == field_set(SCHEMA, second)


@given(configs)
def test_fields_survive_being_written_down(config: JsonObject) -> None:
    found = field_set(SCHEMA, config)
    assert fields.decode(fields.encode(found)) == found


@pytest.mark.parametrize("wrong", [[], "x", {"x": {}}, {"f:a": 1}, {"k:{": {}}, {"q:a": {}}])
def test_fields_that_cannot_be_read(wrong: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        fields.decode(wrong)


def test_a_path_is_shown_as_kubernetes_shows_it() -> None:
    path = ("f:spec", 'k:{"name":"root"}', "f:size")
    assert fields.show(path) == '.spec[name="root"].size'
    assert fields.show(("f:finalizers", 'v:"a"')) == '.finalizers[="a"]'


def test_the_oldest_of_many_updaters_become_one() -> None:
    owners: dict[Manager, Owned] = {}
    live: JsonObject = {"spec": {"labels": {}}}
    for index in range(MAX_UPDATERS + 5):
        new = {"spec": {"labels": {**live["spec"]["labels"], f"l{index}": "x"}}}
        manager = Manager(f"m{index:02}", UPDATE, "v1")
        owners = managers.updated(owners, manager, managers.differences(SCHEMA, live, new), NOW)
        live = new
    assert len(owners) == MAX_UPDATERS
    ancient = owners[Manager("ancient-changes", UPDATE, "v1")]
    assert len(ancient.fields) == 6
    assert managers.decode(managers.encode(owners)) == owners


def test_what_the_schema_does_not_know_is_nobodys() -> None:
    assert known(SCHEMA, {"spec": {"count": 1, "cuont": 2, "labels": {"any": "x"}}, "more": 1}) == {
        "spec": {"count": 1, "labels": {"any": "x"}}
    }
