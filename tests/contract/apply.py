"""What every store promises of server-side apply. See ``writes`` for how a store runs this."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from carmel.errors import BadRequest, Conflict, NotFound
from carmel.resources.base import JsonObject
from carmel.resources.virtualmachine import VIRTUAL_MACHINE as VM
from carmel.store.protocol import PatchType, Store, WriteOptions
from tests.contract.objects import vm


def config(spec: JsonObject, **metadata: Any) -> JsonObject:
    metadata = {"name": "a", "namespace": "default", **metadata}
    return {"apiVersion": VM.api_version, "kind": VM.kind, "metadata": metadata, "spec": spec}


async def apply(
    store: Store, body: JsonObject, manager: str, *, force: bool = False, subresource: str = "", dry_run: bool = False
) -> JsonObject:
    options = WriteOptions(manager=manager, force=force, dry_run=dry_run)
    document = orjson.dumps(body)
    done = await store.patch(VM, "default", "a", document, PatchType.APPLY, subresource=subresource, options=options)
    return done.json()


def owners(body: JsonObject) -> dict[tuple[str, str], JsonObject]:
    return {(one["manager"], one["operation"]): one["fieldsV1"] for one in body["metadata"].get("managedFields", [])}


class ApplyContract:
    async def test_an_apply_creates(self, store: Store) -> None:
        body = await apply(store, config({"cpu": {"count": 2}}, labels={"x": "y"}), "one")
        assert body["spec"]["cpu"]["count"] == 2
        assert owners(body) == {
            ("one", "Apply"): {"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:cpu": {"f:count": {}}}}
        }
        assert await apply(store, config({"cpu": {"count": 2}}, labels={"x": "y"}), "one") == body

    async def test_a_plain_write_owns_what_it_set(self, store: Store) -> None:
        created = (await store.create(VM, vm("a", cpus=2), WriteOptions(manager="kubectl-create"))).json()
        (entry,) = created["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"], entry["apiVersion"]) == (
            "kubectl-create",
            "Update",
            VM.api_version,
        )
        assert entry["fieldsV1"]["f:spec"]["f:cpu"]["f:count"] == {}
        status = {**created, "status": {"hostName": "pi"}}
        written = (await store.replace(VM, status, subresource="status", options=WriteOptions(manager="ctl"))).json()
        mine = [one for one in written["metadata"]["managedFields"] if one["manager"] == "ctl"]
        assert [(one["subresource"], one["fieldsV1"]["f:status"]["f:hostName"]) for one in mine] == [("status", {})]

    async def test_two_managers_conflict(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}}), "one")
        with pytest.raises(Conflict) as caught:
            await apply(store, config({"cpu": {"count": 4}}), "two")
        assert caught.value.message == 'Apply failed with 1 conflict: conflict with "one": .spec.cpu.count'
        (cause,) = caught.value.causes
        assert (cause.reason, cause.field) == ("FieldManagerConflict", ".spec.cpu.count")
        assert cause.message == 'conflict with "one"'
        body = await apply(store, config({"cpu": {"count": 4}}), "two", force=True)
        assert body["spec"]["cpu"]["count"] == 4
        assert set(owners(body)) == {("two", "Apply")}

    async def test_several_conflicts_are_listed_by_manager(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}, "memory": {"size": "1Gi"}}), "one")
        with pytest.raises(Conflict) as caught:
            await apply(store, config({"cpu": {"count": 4}, "memory": {"size": "2Gi"}}), "two")
        assert caught.value.message == (
            'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.cpu.count\n- .spec.memory.size'
        )

    async def test_a_conflict_with_a_plain_writer_says_when(self, store: Store) -> None:
        await store.create(VM, vm("a", cpus=2), WriteOptions(manager="editor"))
        with pytest.raises(
            Conflict, match=r'conflict with "editor" using carmel.dev/v1alpha1 at 20.*Z: .spec.cpu.count'
        ):
            await apply(store, config({"cpu": {"count": 4}}), "two")

    async def test_the_same_value_is_shared(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}}), "one")
        both = await apply(store, config({"cpu": {"count": 2}}), "two")
        assert set(owners(both)) == {("one", "Apply"), ("two", "Apply")}
        left = await apply(store, config({}), "one")
        assert left["spec"]["cpu"]["count"] == 2
        gone = await apply(store, config({}), "two")
        assert gone["spec"]["cpu"]["count"] == 1

    async def test_what_is_no_longer_applied_goes(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}}, labels={"x": "y", "z": "z"}), "one")
        await store.patch(VM, "default", "a", b'{"metadata":{"labels":{"other":"o"}}}', PatchType.MERGE)
        body = await apply(store, config({}, labels={"z": "z"}), "one")
        assert body["metadata"]["labels"] == {"z": "z", "other": "o"}
        assert body["spec"]["cpu"]["count"] == 1

    async def test_a_list_by_name_is_shared_item_by_item(self, store: Store) -> None:
        root, data = {"name": "root", "size": "4Gi"}, {"name": "data", "size": "1Gi"}
        await apply(store, config({"disks": [root]}), "one")
        body = await apply(store, config({"disks": [data]}), "two")
        assert [disk["name"] for disk in body["spec"]["disks"]] == ["root", "data"]
        assert owners(body)["two", "Apply"]["f:spec"]["f:disks"] == {
            'k:{"name":"data"}': {".": {}, "f:name": {}, "f:size": {}}
        }
        body = await apply(store, config({"disks": []}), "one")
        assert [disk["name"] for disk in body["spec"]["disks"]] == ["data"]

    async def test_an_update_takes_fields_over(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}, "memory": {"size": "1Gi"}}), "one")
        patched = await store.patch(
            VM, "default", "a", b'{"spec":{"cpu":{"count":3}}}', PatchType.MERGE, options=WriteOptions(manager="editor")
        )
        assert owners(patched.json())["one", "Apply"] == {"f:spec": {"f:memory": {"f:size": {}}}}
        assert owners(patched.json())["editor", "Update"] == {"f:spec": {"f:cpu": {"f:count": {}}}}

    async def test_status_is_applied_through_its_subresource(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}}), "one")
        wanted = {**config({"cpu": {"count": 8}}), "status": {"hostName": "pi"}}
        assert "hostName" not in (await apply(store, wanted, "one", force=True)).get("status", {})
        body = await apply(store, wanted, "ctl", subresource="status")
        assert body["status"]["hostName"] == "pi"
        assert owners(body)["ctl", "Apply"] == {"f:status": {"f:hostName": {}}}

    async def test_owners_can_be_forgotten(self, store: Store) -> None:
        await apply(store, config({"cpu": {"count": 2}}), "one")
        empty = await store.patch(VM, "default", "a", b'{"metadata":{"managedFields":[]}}', PatchType.MERGE)
        assert set(owners(empty.json())) == {("one", "Apply")}
        reset = await store.patch(VM, "default", "a", b'{"metadata":{"managedFields":[{}]}}', PatchType.MERGE)
        assert not owners(reset.json())
        with pytest.raises(Conflict, match="before-first-apply"):
            await apply(store, config({"cpu": {"count": 4}}), "two")

    async def test_an_apply_that_cannot_be(self, store: Store) -> None:
        with pytest.raises(BadRequest, match="managedFields must be nil"):
            await apply(store, config({}, managedFields=[{"manager": "x"}]), "one")
        with pytest.raises(BadRequest, match="lacks its key: name"):
            await apply(store, config({"disks": [{"size": "1Gi"}]}), "one")
        with pytest.raises(Conflict):
            await apply(store, config({}, uid="of-one-that-is-gone"), "one")
        with pytest.raises(NotFound):
            await apply(store, config({}), "one", subresource="status")
        await apply(store, config({}), "one", dry_run=True)
        assert not (await store.list(VM)).items

    async def test_what_is_no_json_is_refused(self, store: Store) -> None:
        for text in (b"kind: VirtualMachine\n", b"[]", b"{", b'{"a":' * 200 + b"1" + b"}" * 200):
            with pytest.raises(BadRequest):
                await store.patch(VM, "default", "a", text, PatchType.APPLY, options=WriteOptions(manager="one"))
