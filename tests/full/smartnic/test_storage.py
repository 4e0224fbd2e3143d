"""Storage offload in a lab: remote storage by NVMe over TCP, whose paths are the SmartNIC's, and drives of its host.

The target is nvmet on the NIC's own loopback (``target``). Between NIC and host is the QEMU outside, which stands for
PCIe: an NVMe drive is plugged into the host's machine by naming a Volume in its spec.
"""

from __future__ import annotations

import pytest

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready
from tests.full.smartnic.drives import check_blocks, offer, plug, stalls, state, write_blocks
from tests.full.smartnic.pair import NIC, Pair
from tests.full.smartnic.target import Target

pytestmark = pytest.mark.timeout(1500)
GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture(scope="module")
def target(pair: Pair) -> Target:
    target = Target(pair.nic)
    target.start()
    return target


@pytest.fixture(scope="module")
def datastore(pair: Pair, target: Target) -> JsonObject:
    """``fast``, on a function of the NIC's that the host has for itself."""
    offer(pair, "shared", 1, "pf0nvme0", stallSeconds=300)
    plug(pair, "pf0nvme0")
    spec = {"type": "NVMe", "nvme": {"serial": "pf0nvme0"}}
    pair.host.create("datastore", {"metadata": {"name": "fast"}, "spec": spec}, None)
    return pair.host.wait_for("datastore", "fast", is_ready, namespace=None)


@pytest.fixture(scope="module")
def web(pair: Pair, datastore: JsonObject) -> str:
    """A VM with a Volume of that datastore."""
    spec = {"size": "64Mi", "datastoreRef": {"name": "fast"}}
    pair.host.create("volume", {"metadata": {"name": "disk"}, "spec": spec})
    pair.host.wait_for("volume", "disk", is_ready)
    return guest(pair, "web", [{"name": "data", "volumeRef": {"name": "disk"}}])


@pytest.fixture(scope="module")
def own(pair: Pair, target: Target) -> list[JsonObject]:
    """The disks of ``db``: a function that is that VM's alone."""
    offer(pair, "db-data", 2, "pf0nvme1", owner={"namespace": "default", "name": "db"}, limits={"writeMBps": 50})
    plug(pair, "pf0nvme1")
    spec = {"type": "SmartNIC", "smartNICRef": {"name": NIC}}
    pair.host.create("datastore", {"metadata": {"name": "nic"}, "spec": spec}, None)
    volume = {"datastoreRef": {"name": "nic"}, "export": "db-data"}
    pair.host.create("volume", {"metadata": {"name": "db-data"}, "spec": volume})
    found = pair.host.wait_for("volume", "db-data", is_ready)
    assert found["status"]["capacityBytes"] == 64 * MIB
    return [{"name": "data", "bus": "nvme", "volumeRef": {"name": "db-data"}}]


@pytest.fixture(scope="module")
def db(pair: Pair, own: list[JsonObject]) -> str:
    return guest(pair, "db", own)


def guest(pair: Pair, name: str, disks: list[JsonObject]) -> str:
    pair.host.create("vm", pair.host.micro_vm(name, disks=disks))
    pair.host.wait_for("vm", name, is_ready)
    pair.host.wait_for_console(name, "carmel micro: ready")
    return name


def test_a_datastore_on_a_function_waits_longer_than_its_path_may_be_away(pair: Pair, datastore: JsonObject) -> None:
    assert 0.9 * GIB < datastore["status"]["capacityBytes"] <= GIB
    device = datastore["status"]["device"].removeprefix("/dev/")
    assert pair.host.shell(f"cat /sys/block/{device}/queue/io_timeout").split() == ["420000"]


def test_a_datastore_on_a_function_outlives_whatever_its_nic_does(pair: Pair, target: Target, web: str) -> None:
    write_blocks(pair, web, "/dev/vda", 0, 100)
    pair.host.wait_for_console(web, "wrote=3")
    # The path to the storage goes, and comes back.
    target.close()
    state(pair, "shared", "Stalled")
    target.open()
    state(pair, "shared", "Online")
    pair.host.wait_for_console(web, "wrote=100")

    write_blocks(pair, web, "/dev/vda", 100, 100)
    pair.host.wait_for_console(web, "wrote=103")
    # What shows the namespace is killed: the NIC's daemon starts it again.
    pair.nic.shell("kill -9 $(pidof qemu-storage-daemon)")
    pair.host.wait_for_console(web, "wrote=200")
    check_blocks(pair, web, "/dev/vda", 200)


def test_a_power_cut_of_the_nic_is_a_pause(pair: Pair, target: Target, web: str) -> None:
    write_blocks(pair, web, "/dev/vda", 200, 100)
    pair.host.wait_for_console(web, "wrote=203")
    pair.power_off(pair.nic)
    pair.power_on(pair.nic)
    target.start()
    state(pair, "shared", "Online")
    pair.host.wait_for_console(web, "wrote=300")
    check_blocks(pair, web, "/dev/vda", 100, first=200)


def test_a_vm_has_a_function_of_its_own(pair: Pair, own: list[JsonObject], db: str) -> None:
    assert pair.host.guest_shell(db, "cat /sys/class/nvme/nvme0/serial").split() == ["pf0nvme1"]
    write_blocks(pair, db, "/dev/nvme0n1", 0, 50)
    pair.host.wait_for_console(db, "wrote=50")
    check_blocks(pair, db, "/dev/nvme0n1", 50)
    # It is nobody else's: not another VM's, nor the host's.
    pair.host.create("vm", pair.host.micro_vm("thief", disks=own))
    pair.host.wait_for("vm", "thief", lambda vm: "VolumeInUse" in str(dig(vm, "status", "conditions")))
    pair.host.delete("vm", "thief")
    spec = {"type": "NVMe", "nvme": {"serial": "pf0nvme1"}}
    pair.host.create("datastore", {"metadata": {"name": "theft"}, "spec": spec}, None)
    pair.host.wait_for(
        "datastore", "theft", lambda one: "NamespaceOfAVM" in str(dig(one, "status", "conditions")), namespace=None
    )


def test_when_the_stall_is_over_the_guest_is_told(pair: Pair, target: Target, datastore: JsonObject, db: str) -> None:
    write = "dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=1 seek=9000 conv=fsync 2>&1 && echo do''ne || echo no''t"
    # Both come by one connection, which waits as long as the more patient of them.
    with stalls(pair, 1, "db-data", "shared"):
        assert "done" in pair.host.guest_shell(db, write)
        target.close()
        state(pair, "db-data", "Failed")
        assert "not" in pair.host.guest_shell(db, write)
        target.open()
        state(pair, "db-data", "Online")
        assert "done" in pair.host.guest_shell(db, f"until {write.partition(' ||')[0]}; do :; done")
