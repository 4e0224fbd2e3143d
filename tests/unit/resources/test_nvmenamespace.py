"""What an NVMeNamespace, and what stands on one, may say."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.errors import Invalid
from carmel.resources.admission import admit
from carmel.resources.datastore import DATASTORE
from carmel.resources.kinds import Kind
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.volume import VOLUME

NQN = "nqn.2014-08.org.nvmexpress:uuid:7a1f3c52-8d60-4d55-9b21-2f6a8a0c1a11"
REMOTE = {"remote": {"address": "192.0.2.7", "subsystemNQN": NQN}}
NBD: dict[str, Any] = {"address": "127.0.0.1", "tlsSecretRef": {"name": "nic"}, "exports": [{"name": "pf0nvme0"}]}


def admitted(kind: Kind, spec: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": "one", **({"namespace": "default"} if kind.namespaced else {})}
    before = None if old is None else {"metadata": metadata, "spec": old}
    found: dict[str, Any] = admit(kind, {"metadata": metadata, "spec": spec}, before)["spec"]
    return found


def fields(kind: Kind, spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(Invalid) as raised:
        admitted(kind, spec, old)
    return [one.field for one in raised.value.causes]


def test_a_remote_namespace_has_nvmes_own_defaults() -> None:
    spec = admitted(NVME_NAMESPACE, {"source": REMOTE})
    assert spec["source"]["remote"] == {"address": "192.0.2.7", "port": 4420, "subsystemNQN": NQN, "namespaceID": 1}
    assert spec["stallSeconds"] == 600


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({}, "spec.source"),
        ({**REMOTE, "disk": {"serial": "S1"}}, "spec.source"),
        ({"remote": {"address": "0.0.0.0", "subsystemNQN": NQN}}, "spec.source.remote.address"),
        ({"remote": {"address": "storage.example", "subsystemNQN": NQN}}, "spec.source.remote.address"),
        ({"remote": {"address": "::1", "subsystemNQN": f"{NQN},nr_io_queues=1"}}, "spec.source.remote.subsystemNQN"),
        ({"remote": {"address": "::1", "subsystemNQN": f"{NQN}\n"}}, "spec.source.remote.subsystemNQN"),
        ({"remote": {**REMOTE["remote"], "namespaceID": 0}}, "spec.source.remote.namespaceID"),
        ({"disk": {"serial": "a serial of more than twenty bytes"}}, "spec.source.disk.serial"),
    ],
)
def test_a_source_that_names_no_blocks_is_refused(source: dict[str, Any], field: str) -> None:
    assert fields(NVME_NAMESPACE, {"source": source}) == [field]


def test_other_data_never_appears_under_a_disk() -> None:
    old = admitted(NVME_NAMESPACE, {"source": REMOTE})
    assert fields(NVME_NAMESPACE, {"source": {"disk": {"serial": "S1"}}}, old) == ["spec.source"]
    changed = admitted(NVME_NAMESPACE, {**old, "limits": {"readMBps": 100}, "function": "pf0nvme0"}, old)
    assert changed["limits"] == {"readMBps": 100}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "NVMe"}, ["spec.nvme"]),
        ({"type": "NBD"}, ["spec.nbd"]),
        ({"type": "NVMe", "nvme": {"serial": "S1"}, "directory": {"path": "/srv/x"}}, ["spec.directory.path"]),
        ({"nvme": {"serial": "S1"}}, ["spec.nvme"]),
        ({"type": "NBD", "nbd": {**NBD, "exports": []}}, ["spec.nbd.exports"]),
        ({"type": "NBD", "nbd": {**NBD, "exports": 2 * NBD["exports"]}}, ["spec.nbd.exports[1].name"]),
        ({"type": "NBD", "nbd": {key: value for key, value in NBD.items() if key != "tlsSecretRef"}},
         ["spec.nbd.tlsSecretRef"]),
    ],
)  # fmt: skip
def test_a_datastore_says_what_its_type_needs_and_nothing_else(spec: dict[str, Any], expected: list[str]) -> None:
    assert fields(DATASTORE, spec) == expected


def test_a_drive_stays_and_a_server_may_move() -> None:
    drive = admitted(DATASTORE, {"type": "NVMe", "nvme": {"serial": "S1"}})
    assert fields(DATASTORE, {**drive, "nvme": {"serial": "S2"}}, drive) == ["spec"]
    server = admitted(DATASTORE, {"type": "NBD", "nbd": NBD})
    assert admitted(DATASTORE, {"type": "NBD", "nbd": {**NBD, "address": "::1"}}, server)["nbd"]["address"] == "::1"
    assert fields(DATASTORE, {}, server) == ["spec"]


def test_a_volume_is_an_export_as_it_is() -> None:
    spec = {"datastoreRef": {"name": "nic"}, "export": "pf0nvme0"}
    assert admitted(VOLUME, spec) == spec
    assert fields(VOLUME, {**spec, "size": "1Gi"}) == ["spec.size"]
    assert fields(VOLUME, {**spec, "export": "pf0nvme1"}, spec) == ["spec.export"]
