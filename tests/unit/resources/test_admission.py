"""Admission: defaults, pruning, and errors that name their field."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.errors import Invalid, TooLarge
from carmel.resources.admission import MAX_OBJECT_BYTES, admit
from carmel.resources.core import SECRET
from carmel.resources.image import IMAGE
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK
from carmel.resources.rbac import CLUSTER_ROLE_BINDING, ROLE_BINDING
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.resources.volume import VOLUME


def vm(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def fields_of(kind: Kind, new: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        admit(kind, new, old)
    return {cause.field: cause.reason for cause in caught.value.causes}


def test_a_minimal_vm_gets_every_default() -> None:
    spec = admit(VIRTUAL_MACHINE, vm(), None)["spec"]
    assert spec["cpu"] == {"count": 1, "policy": "Shared", "nestedVirtualization": False}
    assert spec["memory"] == {"size": "1Gi"}
    assert spec["firmware"] == {"type": "UEFI"}
    assert spec["powerState"] == "PoweredOn"
    assert spec["restartPolicy"] == "OnFailure"


def test_admission_is_idempotent() -> None:
    once = admit(VIRTUAL_MACHINE, vm(disks=[{"name": "root", "size": "1Gi"}]), None)
    assert admit(VIRTUAL_MACHINE, once, once) == once


def test_unknown_fields_are_dropped_and_python_names_are_unknown() -> None:
    spec = admit(VIRTUAL_MACHINE, vm(power_state="PoweredOff", nonsense=1), None)["spec"]
    assert spec["powerState"] == "PoweredOn"
    assert "nonsense" not in spec


def test_disk_bus_is_virtio_by_default() -> None:
    disks = admit(VIRTUAL_MACHINE, vm(disks=[{"name": "root", "size": "1Gi"}]), None)["spec"]["disks"]
    assert disks == [{"name": "root", "bus": "virtio", "size": "1Gi"}]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"cpu": {"count": 0}}, "spec.cpu.count"),
        ({"cpu": {"count": 513}}, "spec.cpu.count"),
        ({"cpu": {"count": "many"}}, "spec.cpu.count"),
        ({"cpu": {"model": "host,+x"}}, "spec.cpu.model"),
        ({"cpu": {"count": 4, "topology": {"cores": 3}}}, "spec.cpu.topology"),
        ({"memory": {"size": "2x"}}, "spec.memory.size"),
        ({"memory": {"size": "1Mi"}}, "spec.memory.size"),
        ({"memory": {"size": "1073741825"}}, "spec.memory.size"),
        ({"firmware": {"type": "BIOS"}}, "spec.firmware.type"),
        ({"firmware": {"type": "DirectKernel"}}, "spec.firmware.imageRef"),
        ({"firmware": {"commandLine": "quiet"}}, "spec.firmware.commandLine"),
        ({"powerState": "On"}, "spec.powerState"),
        ({"restartRequestedAt": "yesterday"}, "spec.restartRequestedAt"),
        ({"disks": [{"name": "a"}]}, "spec.disks[0]"),
        ({"disks": [{"name": "a", "size": "1Gi", "bus": "ide"}]}, "spec.disks[0].bus"),
        ({"disks": [{"name": "a", "size": "65Ti"}]}, "spec.disks[0].size"),
        ({"disks": [{"name": "a", "size": "1Gi"}, {"name": "a", "size": "1Gi"}]}, "spec.disks[1].name"),
        ({"disks": [{"name": "a", "volumeRef": {"name": "v"}, "size": "1Gi"}]}, "spec.disks[0]"),
        ({"networks": [{"name": "a", "mac": "01:00:00:00:00:01"}]}, "spec.networks[0].mac"),
        ({"networks": [{"name": "a", "forwards": [{"guestPort": 0}]}]}, "spec.networks[0].forwards[0].guestPort"),
        (
            {"networks": [{"name": "a", "forwards": [{"guestPort": 1, "hostAddress": "1.2.3.999"}]}]},
            "spec.networks[0].forwards[0].hostAddress",
        ),
        ({"cloudInit": {"userData": "#cloud-config"}}, "spec.cloudInit"),
        ({"cloudInit": {"password": "x"}}, "spec.cloudInit"),
        ({"biosUUID": "not-one"}, "spec.biosUUID"),
    ],
)
def test_a_wrong_value_is_told_with_its_path(spec: dict[str, Any], field: str) -> None:
    assert field in fields_of(VIRTUAL_MACHINE, vm(**spec))


@pytest.mark.parametrize("name", ["Web", "-a", "a-", "a.b", "a/b", "..", "a" * 64, "", "ü"])
def test_a_vm_name_is_a_label(name: str) -> None:
    assert "metadata.name" in fields_of(VIRTUAL_MACHINE, vm(name))


def test_errors_read_as_kubernetes_words_them() -> None:
    with pytest.raises(Invalid) as caught:
        admit(VIRTUAL_MACHINE, vm(cpu={"count": 0}), None)
    assert str(caught.value) == (
        'VirtualMachine.carmel.dev "web" is invalid: '
        "spec.cpu.count: Invalid value: 0: must be greater than or equal to 1"
    )


def test_all_wrong_fields_are_told_at_once() -> None:
    wrong = fields_of(VIRTUAL_MACHINE, vm("Web", cpu={"count": 0}, memory={"size": "x"}))
    assert set(wrong) == {"metadata.name", "spec.cpu.count", "spec.memory.size"}


@pytest.mark.parametrize("body", [{"metadata": []}, {"metadata": {"name": 3}}, {"metadata": {"name": "a"}, "spec": 3}])
def test_wrong_shapes_are_invalid_not_a_crash(body: dict[str, Any]) -> None:
    assert fields_of(VIRTUAL_MACHINE, body)


def test_labels_and_annotations_have_names() -> None:
    wrong = fields_of(VIRTUAL_MACHINE, {"metadata": {"name": "a", "labels": {"a b": "c"}, "annotations": {"/x": "y"}}})
    assert set(wrong) == {"metadata.labels", "metadata.annotations"}


def test_an_object_may_not_be_larger_than_the_limit() -> None:
    big = {"metadata": {"name": "a", "annotations": {"note": "x" * MAX_OBJECT_BYTES}}}
    with pytest.raises(TooLarge):
        admit(VIRTUAL_MACHINE, big, None)


def test_an_image_has_exactly_one_source_and_a_way_to_verify_it() -> None:
    def image(**source: Any) -> dict[str, Any]:
        return {"metadata": {"name": "debian"}, "spec": {"source": source}}

    assert "spec.source" in fields_of(IMAGE, image())
    assert "spec.source" in fields_of(IMAGE, image(build={"recipe": "micro"}, upload={}))
    assert "spec.source.url" in fields_of(IMAGE, image(url={"url": "https://a.test/x.qcow2"}))
    assert "spec.source.url.url" in fields_of(
        IMAGE, image(url={"url": "http://a.test/x.qcow2", "checksumURL": "https://a.test/SHA256SUMS"})
    )
    made = admit(IMAGE, image(build={"recipe": "micro"}), None)
    assert "spec" in fields_of(IMAGE, image(build={"recipe": "debian"}), made)


def test_a_volume_grows_but_never_shrinks() -> None:
    def volume(size: str) -> dict[str, Any]:
        return {"metadata": {"name": "data"}, "spec": {"size": size}}

    old = admit(VOLUME, volume("2Gi"), None)
    admit(VOLUME, volume("3Gi"), old)
    assert "spec.size" in fields_of(VOLUME, volume("1Gi"), old)
    assert "spec.size" in fields_of(VOLUME, {"metadata": {"name": "data"}}, None)


def test_a_network_keeps_its_provider() -> None:
    old = admit(NETWORK, {"metadata": {"name": "n"}}, None)
    assert old["spec"] == {"provider": "user", "dataPlane": "Host"}
    assert "spec.provider" in fields_of(NETWORK, {"metadata": {"name": "n"}, "spec": {"provider": "nat"}}, old)


def test_secrets_hold_base64_and_immutable_ones_stay() -> None:
    secret = {"metadata": {"name": "s"}, "data": {"k": "aGk="}, "immutable": True}
    old = admit(SECRET, secret, None)
    assert "data[k]" in fields_of(SECRET, {**secret, "data": {"k": "not base64!"}})
    assert "data" in fields_of(SECRET, {**secret, "data": {"k": "aG8="}}, old)


def test_bindings_know_three_roles_and_keep_theirs() -> None:
    binding = {
        "metadata": {"name": "b:1"},
        "roleRef": {"name": "viewer"},
        "subjects": [{"kind": "User", "name": "eve"}],
    }
    old = admit(ROLE_BINDING, binding, None)
    assert "roleRef" in fields_of(ROLE_BINDING, {**binding, "roleRef": {"name": "admin"}}, old)
    assert "roleRef.name" in fields_of(CLUSTER_ROLE_BINDING, {**binding, "roleRef": {"name": "root"}})
