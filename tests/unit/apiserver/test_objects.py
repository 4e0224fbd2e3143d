"""Objects over the API: reads, writes, their shapes and their errors."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from carmel.apiserver.writing import _manager
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import Store
from tests.unit.apiserver.asgi import Answer, call
from tests.unit.apiserver.conftest import Served

VMS = "/apis/carmel.dev/v1alpha1/namespaces/default/virtualmachines"
ALL_VMS = "/apis/carmel.dev/v1alpha1/virtualmachines"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}


def vm(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, **metadata},
        "spec": {},
    }


async def fill(store: Store, count: int) -> None:
    for index in range(count):
        labels = {"parity": "odd" if index % 2 else "even"}
        await store.create(VIRTUAL_MACHINE, vm(f"vm-{index:03}", namespace="default", labels=labels))


def reason(answer: Answer) -> tuple[int, str]:
    status = answer.json()
    assert status["kind"] == "Status"
    assert status["code"] == answer.status
    return answer.status, status["reason"]


async def test_create_get_replace_delete(served: Served) -> None:
    app = served.app
    created = await call(app, "POST", VMS, vm("web"))
    assert created.status == 201
    obj = created.json()
    assert obj["metadata"]["namespace"] == "default"
    assert (await call(app, "GET", f"{VMS}/web")).body == created.body
    obj["spec"]["cpu"] = {"count": 4}
    replaced = await call(app, "PUT", f"{VMS}/web", obj)
    assert (replaced.status, replaced.json()["metadata"]["generation"]) == (200, 2)
    assert reason(await call(app, "PUT", f"{VMS}/web", obj)) == (409, "Conflict")
    deleted = await call(app, "DELETE", f"{VMS}/web", {"preconditions": {"uid": obj["metadata"]["uid"]}})
    assert deleted.json()["status"] == "Success"
    assert deleted.json()["details"]["name"] == "web"
    assert reason(await call(app, "GET", f"{VMS}/web")) == (404, "NotFound")


async def test_names_are_generated(served: Served) -> None:
    body = {"metadata": {"generateName": "job-"}, "spec": {}}
    first, second = [(await call(served.app, "POST", VMS, body)).json()["metadata"]["name"] for _ in range(2)]
    assert first.startswith("job-")
    assert first != second


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("POST", VMS, {"kind": "Image"}, (400, "BadRequest")),
        ("POST", VMS, {"apiVersion": "v1"}, (400, "BadRequest")),
        ("POST", VMS, {"metadata": []}, (400, "BadRequest")),
        ("POST", VMS, {"metadata": {"name": "x", "namespace": "team"}}, (400, "BadRequest")),
        ("POST", VMS, {}, (422, "Invalid")),
        ("POST", VMS, {"metadata": {"name": "A"}}, (422, "Invalid")),
        ("POST", VMS, b"{", (400, "BadRequest")),
        ("POST", f"{VMS}?dryRun=Some", {"metadata": {"name": "x"}}, (422, "Invalid")),
        ("POST", f"{VMS}?fieldValidation=Loose", {"metadata": {"name": "x"}}, (422, "Invalid")),
        ("POST", f"{VMS}?fieldManager={'m' * 129}", {"metadata": {"name": "x"}}, (422, "Invalid")),
        ("POST", ALL_VMS, {"metadata": {"name": "x"}}, (405, "MethodNotAllowed")),
        ("POST", VMS.replace("default", "gone"), {"metadata": {"name": "x"}}, (404, "NotFound")),
        ("PUT", f"{VMS}/web", {"metadata": {"name": "other"}}, (400, "BadRequest")),
        ("PUT", f"{VMS}/web", {}, (404, "NotFound")),
        ("GET", f"{VMS}?limit=-1", None, (400, "BadRequest")),
        ("GET", f"{VMS}?limit=x", None, (400, "BadRequest")),
        ("GET", f"{VMS}?watch=perhaps", None, (400, "BadRequest")),
        ("GET", f"{VMS}?continue=nonsense", None, (400, "BadRequest")),
        ("GET", f"{VMS}?labelSelector=%3D%3D", None, (400, "BadRequest")),
        ("GET", f"{VMS}?fieldSelector=spec.x%3D1", None, (400, "BadRequest")),
        ("GET", f"{VMS}?includeObject=Half", None, (400, "BadRequest")),
        ("GET", f"{VMS}?resourceVersionMatch=Exact", None, (422, "Invalid")),
        ("GET", f"{VMS}?resourceVersionMatch=Exact&resourceVersion=1", None, (410, "Expired")),
        ("GET", f"{VMS}?watch=1&sendInitialEvents=true", None, (422, "Invalid")),
        ("GET", f"{VMS}?watch=1&resourceVersionMatch=NotOlderThan", None, (422, "Invalid")),
        ("GET", f"{VMS}?watch=1&timeoutSeconds=soon", None, (400, "BadRequest")),
        ("DELETE", f"{VMS}/web?propagationPolicy=Wild", None, (422, "Invalid")),
        ("DELETE", f"{VMS}/web", {"preconditions": {"uid": 1}}, (400, "BadRequest")),
        ("DELETE", f"{VMS}/web", {"dryRun": "All"}, (400, "BadRequest")),
        ("DELETE", f"{VMS}/web", {"dryRun": ["Some"]}, (422, "Invalid")),
        ("DELETE", f"{VMS}/web", {"kind": "Status"}, (400, "BadRequest")),
        ("GET", "/nonsense", None, (404, "NotFound")),
        ("POST", "/version", {}, (405, "MethodNotAllowed")),
        ("GET", f"{VMS}/web/console", None, (400, "BadRequest")),
    ],
)
async def test_bad_requests(served: Served, method: str, target: str, body: Any, expected: tuple[int, str]) -> None:
    assert reason(await call(served.app, method, target, body)) == expected


async def test_an_invalid_object_names_its_fields(served: Served) -> None:
    body = {**vm("web"), "spec": {"cpu": {"count": 0}, "memory": {"size": "much"}}}
    status = (await call(served.app, "POST", VMS, body)).json()
    causes = {one["field"]: one["message"] for one in status["details"]["causes"]}
    assert set(causes) == {"spec.cpu.count", "spec.memory.size"}
    assert causes["spec.cpu.count"].startswith("Invalid value: 0: ")
    assert (status["details"]["kind"], status["details"]["name"]) == ("VirtualMachine", "web")
    assert status["details"]["carmel"]["field"] == "spec.cpu.count"


async def test_unknown_fields_are_warned_of_or_refused(served: Served) -> None:
    body = {**vm("web"), "spec": {"cuont": 1}}
    strict = await call(served.app, "POST", f"{VMS}?fieldValidation=Strict", body)
    assert reason(strict) == (400, "BadRequest")
    warned = await call(served.app, "POST", VMS, body)
    assert warned.headers["warning"] == '299 - "unknown field \\"spec.cuont\\""'
    ignored = await call(served.app, "PUT", f"{VMS}/web?fieldValidation=Ignore", body)
    assert "warning" not in ignored.headers


async def test_a_warning_cannot_break_out_of_its_header(served: Served) -> None:
    answer = await call(served.app, "POST", VMS, {**vm("web"), "spec": {'a"\r\nx: y\\': 1}})
    assert answer.status == 201
    assert "\n" not in answer.headers["warning"]
    assert answer.headers["warning"].count('"') - answer.headers["warning"].count('\\"') == 2


async def test_patches(served: Served) -> None:
    app = served.app
    await call(app, "POST", VMS, vm("web"))
    merged = await call(app, "PATCH", f"{VMS}/web", {"spec": {"cpu": {"count": 3}}}, MERGE)
    assert merged.json()["spec"]["cpu"]["count"] == 3
    operations = [{"op": "replace", "path": "/spec/cpu/count", "value": 5}]
    patched = await call(app, "PATCH", f"{VMS}/web", operations, {"content-type": "application/json-patch+json"})
    assert patched.json()["spec"]["cpu"]["count"] == 5
    applied = await call(app, "PATCH", f"{VMS}/new?fieldManager=me", b"spec: {cpu: {count: 2}}", APPLY)
    assert (applied.status, applied.json()["metadata"]["managedFields"][0]["manager"]) == (201, "me")
    assert reason(await call(app, "PATCH", f"{VMS}/new", b"spec: {}", APPLY)) == (422, "Invalid")
    assert reason(await call(app, "PATCH", f"{VMS}/web?force=true", {}, MERGE)) == (422, "Invalid")
    assert reason(await call(app, "PATCH", f"{VMS}/web", {}, {"content-type": "text/plain"}))[0] == 415
    taken = await call(app, "PATCH", f"{VMS}/new?fieldManager=you", b"spec: {cpu: {count: 4}}", APPLY)
    assert reason(taken) == (409, "Conflict")


async def test_status_is_written_apart(served: Served) -> None:
    created = (await call(served.app, "POST", VMS, vm("web"))).json()
    created["status"] = {"hostName": "here"}
    created["spec"]["cpu"]["count"] = 9
    written = (await call(served.app, "PUT", f"{VMS}/web/status", created)).json()
    assert (written["status"]["hostName"], written["spec"]["cpu"]["count"]) == ("here", 1)
    assert (await call(served.app, "GET", f"{VMS}/web/status")).json() == written


async def test_a_trial_changes_nothing(served: Served) -> None:
    assert (await call(served.app, "POST", f"{VMS}?dryRun=All", vm("web"))).status == 201
    assert (await call(served.app, "GET", f"{VMS}/web")).status == 404
    await call(served.app, "POST", VMS, vm("web"))
    for body in ({"dryRun": ["All"]}, None):
        target = f"{VMS}/web" if body else f"{VMS}/web?dryRun=All"
        assert (await call(served.app, "DELETE", target, body)).status == 200
        assert (await call(served.app, "GET", f"{VMS}/web")).status == 200


async def test_lists(served: Served) -> None:
    await fill(served.store, 5)
    whole = (await call(served.app, "GET", VMS)).json()
    assert (whole["kind"], len(whole["items"])) == ("VirtualMachineList", 5)
    assert whole["items"][0]["kind"] == "VirtualMachine"
    odd = (await call(served.app, "GET", f"{ALL_VMS}?labelSelector=parity%3Dodd")).json()
    assert [one["metadata"]["name"] for one in odd["items"]] == ["vm-001", "vm-003"]
    empty = (await call(served.app, "GET", VMS.replace("default", "team"))).json()
    assert empty["items"] == []


async def test_pages(served: Served) -> None:
    await fill(served.store, 5)
    names, token, remaining = [], "", []
    while True:
        page = (await call(served.app, "GET", f"{VMS}?limit=2&continue={token}")).json()
        names += [one["metadata"]["name"] for one in page["items"]]
        remaining.append(page["metadata"].get("remainingItemCount"))
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"vm-{index:03}" for index in range(5)]
    assert remaining == [3, 1, None]


async def test_tables(served: Served) -> None:
    await fill(served.store, 450)
    table = (await call(served.app, "GET", VMS, headers=TABLE)).json()
    assert (table["kind"], table["apiVersion"], len(table["rows"])) == ("Table", "meta.k8s.io/v1", 450)
    names = [column["name"] for column in table["columnDefinitions"]]
    assert (names[0], names[-1]) == ("Name", "Age")
    row = table["rows"][3]
    assert row["cells"][0] == "vm-003"
    assert row["cells"][-1].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert all(len(row["cells"]) == len(names) for row in table["rows"])
    bare = (await call(served.app, "GET", f"{VMS}?includeObject=None&limit=1", headers=TABLE)).json()
    assert "object" not in bare["rows"][0]
    assert bare["metadata"]["remainingItemCount"] == 449
    one = (await call(served.app, "GET", f"{VMS}/vm-001?includeObject=Object", headers=TABLE)).json()
    assert one["rows"][0]["object"]["spec"]["cpu"]["count"] == 1


async def test_other_shapes(served: Served) -> None:
    await fill(served.store, 3)
    partial = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    listed = (await call(served.app, "GET", VMS, headers=partial)).json()
    assert listed["kind"] == "PartialObjectMetadataList"
    assert set(listed["items"][2]) == {"kind", "apiVersion", "metadata"}
    text = await call(served.app, "GET", f"{VMS}/vm-001", headers={"accept": "application/yaml"})
    assert b"name: vm-001\n" in text.body
    whole = await call(served.app, "GET", VMS, headers={"accept": "application/yaml"})
    assert len(yaml.safe_load(whole.body)["items"]) == 3
    assert (await call(served.app, "GET", VMS, headers={"accept": "text/html"})).status == 406


async def test_deletecollection(served: Served) -> None:
    await fill(served.store, 4)
    deleted = (await call(served.app, "DELETE", f"{VMS}?labelSelector=parity%3Deven")).json()
    assert [one["metadata"]["name"] for one in deleted["items"]] == ["vm-000", "vm-002"]
    left = (await call(served.app, "GET", VMS)).json()["items"]
    assert [one["metadata"]["name"] for one in left] == ["vm-001", "vm-003"]


async def test_orphans_lose_their_owner(served: Served) -> None:
    owner = (await call(served.app, "POST", VMS, vm("owner"))).json()["metadata"]
    reference = {"apiVersion": "carmel.dev/v1alpha1", "kind": "VirtualMachine", "name": "owner", "uid": owner["uid"]}
    other = {**reference, "name": "other", "uid": "somebody"}
    await call(served.app, "POST", VMS, vm("child", ownerReferences=[reference, other]))
    await call(served.app, "DELETE", f"{VMS}/owner", {"propagationPolicy": "Orphan"})
    child = (await call(served.app, "GET", f"{VMS}/child")).json()["metadata"]
    assert [one["uid"] for one in child["ownerReferences"]] == ["somebody"]


async def test_a_held_back_object_is_answered_marked(served: Served) -> None:
    await call(served.app, "POST", VMS, vm("held", finalizers=["carmel.dev/test"]))
    marked = (await call(served.app, "DELETE", f"{VMS}/held")).json()
    assert (marked["kind"], bool(marked["metadata"]["deletionTimestamp"])) == ("VirtualMachine", True)


async def test_every_answer_has_its_headers(served: Served) -> None:
    answer = await call(served.app, "GET", VMS)
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache, private"
    assert answer.headers["date"].endswith("GMT")


@pytest.mark.parametrize(
    ("given", "agent", "manager"),
    [
        ({"fieldManager": "me"}, "kubectl/v1", "me"),
        ({}, "kubectl/v1.37.1 (linux/amd64)", "kubectl"),
        ({}, "a\tb", "ab"),
        ({}, "", "unknown"),
        ({}, "x" * 200, "x" * 128),
    ],
)
def test_field_managers(given: dict[str, str], agent: str, manager: str) -> None:
    assert _manager(given, agent) == manager


async def test_bugs_are_a_status_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(served.store, "get", broken)
    answer = await call(served.app, "GET", f"{VMS}/web")
    assert reason(answer) == (500, "InternalError")
    assert b"Traceback" not in answer.body
    assert orjson.loads(answer.body)["details"]["name"] == "web"
