"""What every store promises of writes. A store runs the suite by a subclass with a fixture ``store``."""

from __future__ import annotations

import asyncio

import pytest

from carmel.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, NotFound
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.virtualmachine import VIRTUAL_MACHINE as VM
from carmel.store.protocol import FieldValidation, PatchType, Preconditions, Store, WriteOptions
from tests.contract.objects import secret, vm

FINALIZER = "carmel.dev/test"


class WriteContract:
    async def test_a_new_object_gets_its_identity_from_the_store(self, store: Store) -> None:
        body = vm("a", uid="mine", creationTimestamp="2001-01-01T00:00:00Z", generation=7) | {
            "status": {"hostName": "x"}
        }
        created = (await store.create(VM, body)).json()
        metadata = created["metadata"]
        assert metadata["uid"] != "mine"
        assert metadata["generation"] == 1
        assert not metadata["creationTimestamp"].startswith("2001")
        assert "hostName" not in created.get("status", {})
        assert (created["apiVersion"], created["kind"]) == (VM.api_version, VM.kind)
        assert (await store.get(VM, "default", "a")).json() == created

    async def test_two_creators_of_one_name(self, store: Store) -> None:
        results = await asyncio.gather(*(store.create(VM, vm("a")) for _ in range(5)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in results) == ["AlreadyExists"] * 4 + ["Stored"]
        assert any(isinstance(one, AlreadyExists) for one in results)

    async def test_a_generated_name(self, store: Store) -> None:
        body = {"metadata": {"generateName": "a-", "namespace": "default"}, "spec": {}}
        names = {(await store.create(VM, body)).name for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("a-") and len(name) == 7 for name in names)

    async def test_a_namespace_must_be_there(self, store: Store) -> None:
        with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
            await store.create(VM, vm("a", "nowhere"))

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"metadata": {"namespace": "default"}}, Invalid),
            ({"metadata": {"name": "Not_A_Name", "namespace": "default"}}, Invalid),
            ({"metadata": {"name": 7, "namespace": "default"}}, BadRequest),
            ({"metadata": []}, BadRequest),
            ({"kind": "Secret", "metadata": {"name": "a", "namespace": "default"}}, BadRequest),
            ({"metadata": {"name": "a", "namespace": "default", "resourceVersion": "1"}}, BadRequest),
            ({"metadata": {"name": "a", "namespace": "default"}, "spec": {"cpu": {"count": "many"}}}, Invalid),
        ],
    )
    async def test_what_cannot_be_created(self, store: Store, body: dict[str, object], error: type[Exception]) -> None:
        with pytest.raises(error):
            await store.create(VM, body)
        assert not (await store.list(VM)).items

    async def test_spec_and_status_are_written_apart(self, store: Store) -> None:
        body = (await store.create(VM, vm("a"))).json()
        both = {**body, "spec": {"cpu": {"count": 4}}, "status": {"hostName": "pi"}}
        both["metadata"] = {**body["metadata"], "labels": {"x": "y"}}
        status = (await store.replace(VM, both, subresource="status")).json()
        assert status["status"]["hostName"] == "pi"
        assert status["spec"]["cpu"]["count"] == 1
        assert status["metadata"]["generation"] == 1
        assert "labels" not in status["metadata"]
        del both["metadata"]["resourceVersion"]
        both["status"] = {"hostName": "other"}
        main = (await store.replace(VM, both)).json()
        assert main["status"]["hostName"] == "pi"
        assert main["spec"]["cpu"]["count"] == 4
        assert main["metadata"]["generation"] == 2

    async def test_generation_stays_with_metadata(self, store: Store) -> None:
        await store.create(VM, vm("a"))
        patched = await store.patch(VM, "default", "a", b'{"metadata":{"labels":{"x":"y"}}}', PatchType.MERGE)
        assert patched.json()["metadata"]["generation"] == 1

    async def test_a_write_that_changes_nothing(self, store: Store) -> None:
        created = await store.create(VM, vm("a"))
        assert await store.replace(VM, created.json()) == created
        assert await store.replace(VM, created.json(), subresource="status") == created
        assert await store.patch(VM, "default", "a", b"{}", PatchType.MERGE) == created

    async def test_a_stale_write_is_a_conflict(self, store: Store) -> None:
        first = await store.create(VM, vm("a"))
        second = await store.replace(VM, vm("a", cpus=2))
        with pytest.raises(Conflict, match="the object has been modified"):
            await store.replace(VM, {**first.json(), "spec": {"cpu": {"count": 3}}})
        with pytest.raises(Conflict, match="Precondition failed: UID"):
            await store.replace(VM, vm("a", uid="another"))
        assert await store.get(VM, "default", "a") == second

    async def test_of_concurrent_updates_none_is_lost(self, store: Store) -> None:
        await store.create(VM, vm("a"))

        async def count() -> None:
            while True:
                body = (await store.get(VM, "default", "a")).json()
                labels = body["metadata"].setdefault("labels", {"n": "0"})
                labels["n"] = str(int(labels["n"]) + 1)
                try:
                    await store.replace(VM, body)
                except Conflict:
                    continue
                return

        await asyncio.gather(*(count() for _ in range(10)))
        assert (await store.get(VM, "default", "a")).json()["metadata"]["labels"] == {"n": "10"}

    async def test_what_is_not_there(self, store: Store) -> None:
        for call in (
            store.get(VM, "default", "a"),
            store.replace(VM, vm("a")),
            store.patch(VM, "default", "a", b"{}", PatchType.MERGE),
            store.delete(VM, "default", "a"),
        ):
            with pytest.raises(NotFound, match=r'virtualmachines.carmel.dev "a" not found'):
                await call

    async def test_delete_with_preconditions(self, store: Store) -> None:
        created = await store.create(VM, vm("a"))
        for wrong in (Preconditions(uid="other"), Preconditions(resource_version="1")):
            with pytest.raises(Conflict):
                await store.delete(VM, "default", "a", preconditions=wrong)
        gone = await store.delete(
            VM, "default", "a", preconditions=Preconditions(created.uid, created.resource_version)
        )
        assert gone.uid == created.uid
        with pytest.raises(NotFound):
            await store.get(VM, "default", "a")

    async def test_finalizers_hold_an_object_back(self, store: Store) -> None:
        await store.create(VM, vm("a", finalizers=[FINALIZER, "carmel.dev/other"]))
        marked = (await store.delete(VM, "default", "a")).json()["metadata"]
        assert marked["deletionTimestamp"]
        again = await store.delete(VM, "default", "a")
        assert again.json()["metadata"] == marked
        body = again.json()
        del body["metadata"]["deletionTimestamp"]
        body["metadata"]["finalizers"] = [FINALIZER]
        left = await store.replace(VM, body)
        assert left.json()["metadata"]["deletionTimestamp"] == marked["deletionTimestamp"]
        with pytest.raises(Invalid, match="no new finalizers can be added"):
            await store.replace(VM, vm("a", finalizers=[FINALIZER, "carmel.dev/late"]))
        last = await store.replace(VM, vm("a"))
        assert last.uid == left.uid
        with pytest.raises(NotFound):
            await store.get(VM, "default", "a")

    async def test_a_namespace_ends_when_it_is_finalized(self, store: Store) -> None:
        created = (await store.create(NAMESPACE, {"metadata": {"name": "ending"}})).json()
        assert created["status"]["phase"] == "Active"
        assert created["spec"]["finalizers"] == ["kubernetes"]
        terminating = (await store.delete(NAMESPACE, None, "ending")).json()
        assert terminating["status"]["phase"] == "Terminating"
        with pytest.raises(Forbidden, match="being terminated"):
            await store.create(VM, vm("a", "ending"))
        unchanged = await store.replace(NAMESPACE, {**terminating, "spec": {"finalizers": []}})
        assert unchanged.json()["spec"]["finalizers"] == ["kubernetes"]
        await store.replace(NAMESPACE, {**terminating, "spec": {"finalizers": []}}, subresource="finalize")
        with pytest.raises(NotFound):
            await store.get(NAMESPACE, None, "ending")

    async def test_a_dry_run_changes_nothing(self, store: Store) -> None:
        dry = WriteOptions(dry_run=True)
        assert (await store.create(VM, vm("a"), dry)).json()["spec"]["cpu"]["count"] == 1
        assert not (await store.list(VM)).items
        created = await store.create(VM, vm("a"))
        assert (await store.replace(VM, vm("a", cpus=2), options=dry)).json()["spec"]["cpu"]["count"] == 2
        await store.delete(VM, "default", "a", dry_run=True)
        assert await store.get(VM, "default", "a") == created

    async def test_unknown_fields(self, store: Store) -> None:
        body = vm("a")
        body["spec"]["cpu"]["cuont"] = 2
        with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "spec.cpu.cuont"'):
            await store.create(VM, body, WriteOptions(field_validation=FieldValidation.STRICT))
        warn = WriteOptions(field_validation=FieldValidation.WARN)
        created = await store.create(VM, body, warn)
        assert warn.warnings == ['unknown field "spec.cpu.cuont"']
        assert "cuont" not in created.json()["spec"]["cpu"]

    async def test_patches_of_each_type(self, store: Store) -> None:
        await store.create(SECRET, secret("a", finalizers=[FINALIZER]))
        for document, patch_type in (
            (b'{"data":{"merge":"eA=="}}', PatchType.MERGE),
            (b'[{"op":"add","path":"/data/json","value":"eA=="},{"op":"remove","path":"/data/key"}]', PatchType.JSON),
            (b'{"stringData":{"strategic":"x"},"metadata":{"finalizers":["carmel.dev/b"]}}', PatchType.STRATEGIC),
        ):
            await store.patch(SECRET, "default", "a", document, patch_type)
        body = (await store.get(SECRET, "default", "a")).json()
        assert body["data"] == {"merge": "eA==", "json": "eA==", "strategic": "eA=="}
        assert body["metadata"]["finalizers"] == [FINALIZER, "carmel.dev/b"]

    @pytest.mark.parametrize(
        ("document", "patch_type", "error"),
        [
            (b"{", PatchType.MERGE, BadRequest),
            (b"[]", PatchType.MERGE, BadRequest),
            (b"{}", PatchType.JSON, BadRequest),
            (b'[{"op":"test","path":"/metadata/name","value":"b"}]', PatchType.JSON, Invalid),
            (b'[{"op":"remove","path":"/spec/none"}]', PatchType.JSON, Invalid),
            (b'[{"op":"jump","path":"/spec"}]', PatchType.JSON, BadRequest),
            (b'{"metadata":{"name":"b"}}', PatchType.MERGE, BadRequest),
            (b'{"metadata":{"resourceVersion":"1"}}', PatchType.MERGE, Conflict),
        ],
    )
    async def test_patches_that_cannot_be(
        self, store: Store, document: bytes, patch_type: PatchType, error: type[Exception]
    ) -> None:
        created = await store.create(VM, vm("a"))
        with pytest.raises(error):
            await store.patch(VM, "default", "a", document, patch_type)
        assert await store.get(VM, "default", "a") == created
