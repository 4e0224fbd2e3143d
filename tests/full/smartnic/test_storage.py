"""Storage offload in a lab: remote storage by NVMe over TCP, whose paths are the SmartNIC's, and drives of its host.

The target is nvmet on the NIC's own loopback (``target``). Between NIC and host is the QEMU outside, which stands for
PCIe: an NVMe drive is plugged into the host's machine by naming a Volume in its spec.
"""

from __future__ import annotations

import re

import pytest

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready
from tests.full.smartnic.pair import LAB, NIC, Pair
from tests.full.smartnic.target import HOST_NQN, NQN, PORT, Target

pytestmark = pytest.mark.timeout(1500)
GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture(scope="module")
def target(pair: Pair) -> Target:
    pair.host.make_micro_image()
    target = Target(pair.nic)
    target.start()
    return target


def remote(namespace_id: int) -> JsonObject:
    return {
        "remote": {
            "address": "127.0.0.1",
            "port": PORT,
            "subsystemNQN": NQN,
            "hostNQN": HOST_NQN,
            "namespaceID": namespace_id,
        }
    }


def offer(pair: Pair, name: str, namespace_id: int, function: str, **spec: object) -> None:
    """What the NIC's administrators do."""
    body = {"source": remote(namespace_id), "function": function, **spec}
    pair.nic.create("nvmenamespace", {"metadata": {"name": name}, "spec": body}, None)
    pair.nic.wait_for("nvmenamespace", name, lambda one: dig(one, "status", "function") == function, namespace=None)


def plug(pair: Pair, function: str) -> None:
    """The drive is plugged into the host's machine, while it runs."""
    volume = {"datastoreRef": {"name": f"{NIC}-nvme"}, "export": function}
    pair.outer.create("volume", {"metadata": {"name": function}, "spec": volume})
    pair.outer.wait_for("volume", function, is_ready)
    disks = pair.outer.get("vm", LAB)["spec"]["disks"]
    disk = {"name": function, "bus": "nvme", "volumeRef": {"name": function}}
    pair.outer.patch("vm", LAB, {"spec": {"disks": [*disks, disk]}})
    pair.host.wait_for("smartnic", NIC, lambda one: "pciAddress" in function_of(one, function), namespace=None)


def function_of(smart_nic: JsonObject, function: str) -> JsonObject:
    listed = dig(smart_nic, "status", "functions") or []
    found: JsonObject = next((one for one in listed if one["id"] == function), {})
    return found


def state(pair: Pair, name: str, wanted: str) -> None:
    pair.nic.wait_for("nvmenamespace", name, lambda one: dig(one, "status", "state") == wanted, namespace=None)


def guest(pair: Pair, name: str, disks: list[JsonObject]) -> None:
    pair.host.create("vm", pair.host.micro_vm(name, disks=disks))
    pair.host.wait_for("vm", name, is_ready)
    pair.host.wait_for_console(name, "carmel micro: ready")


def write_blocks(pair: Pair, vm: str, device: str, first: int, count: int) -> None:
    """Begins; the guest says each block that is on its disk."""
    script = (
        f"until [ -b {device} ]; do :; done; yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; "
        f"(n={first}; while [ $n -lt {first + count} ]; do dd if=/tmp/block of={device} bs=64k seek=$n conv=fsync "
        "2>/dev/null || echo bad=$n >/dev/console; n=$((n + 1)); echo wrote=$n >/dev/console; done) &"
    )
    pair.host.guest_shell(vm, script)


def check_blocks(pair: Pair, vm: str, device: str, count: int) -> None:
    script = (
        "yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; good=0; n=0; echo 3 >/proc/sys/vm/drop_caches; "
        f"while [ $n -lt {count} ]; do dd if={device} bs=64k skip=$n count=1 2>/dev/null | cmp -s - /tmp/block && "
        "good=$((good + 1)); n=$((n + 1)); done; echo good=$good; dmesg | grep -c 'I/O error' | sed s/^/errors=/"
    )
    said = pair.host.guest_shell(vm, script)
    assert re.findall(r"good=\d+|errors=\d+", said) == [f"good={count}", "errors=0"], said


def test_a_datastore_on_a_function_outlives_whatever_its_nic_does(pair: Pair, target: Target) -> None:
    offer(pair, "shared", 1, "pf0nvme0", stallSeconds=300)
    plug(pair, "pf0nvme0")
    pair.host.create(
        "datastore", {"metadata": {"name": "fast"}, "spec": {"type": "NVMe", "nvme": {"serial": "pf0nvme0"}}}, None
    )
    datastore = pair.host.wait_for("datastore", "fast", is_ready, namespace=None)
    assert 0.9 * GIB < datastore["status"]["capacityBytes"] <= GIB
    # The driver waits longer than the path may be away.
    device = datastore["status"]["device"].removeprefix("/dev/")
    assert pair.host.shell(f"cat /sys/block/{device}/queue/io_timeout").split() == ["420000"]
    pair.host.create(
        "volume", {"metadata": {"name": "disk"}, "spec": {"size": "64Mi", "datastoreRef": {"name": "fast"}}}
    )
    pair.host.wait_for("volume", "disk", is_ready)
    guest(pair, "web", [{"name": "data", "volumeRef": {"name": "disk"}}])

    write_blocks(pair, "web", "/dev/vda", 0, 100)
    pair.host.wait_for_console("web", "wrote=3")
    # The path to the storage goes, and comes back.
    target.close()
    state(pair, "shared", "Stalled")
    target.open()
    state(pair, "shared", "Online")
    pair.host.wait_for_console("web", "wrote=100")

    write_blocks(pair, "web", "/dev/vda", 100, 100)
    pair.host.wait_for_console("web", "wrote=103")
    # What shows the namespace is killed: the NIC's daemon starts it again.
    pair.nic.shell("kill -9 $(pidof qemu-storage-daemon)")
    pair.host.wait_for_console("web", "wrote=200")
    check_blocks(pair, "web", "/dev/vda", 200)


def test_a_power_cut_of_the_nic_is_a_pause(pair: Pair, target: Target) -> None:
    write_blocks(pair, "web", "/dev/vda", 200, 100)
    pair.host.wait_for_console("web", "wrote=203")
    pair.outer.patch("vm", NIC, {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
    pair.outer.wait_for("vm", NIC, lambda vm: dig(vm, "status", "powerState") == "PoweredOff")
    pair.outer.patch("vm", NIC, {"spec": {"powerState": "PoweredOn"}})
    pair.outer.wait_for_console(NIC, "carmel lab: ready", times=2)
    target.start()
    state(pair, "shared", "Online")
    pair.host.wait_for_console("web", "wrote=300")
    check_blocks(pair, "web", "/dev/vda", 300)


def test_a_vm_has_a_function_of_its_own(pair: Pair, target: Target) -> None:
    offer(pair, "db-data", 2, "pf0nvme1", owner={"namespace": "default", "name": "db"}, limits={"writeMBps": 50})
    plug(pair, "pf0nvme1")
    spec = {"type": "SmartNIC", "smartNICRef": {"name": NIC}}
    pair.host.create("datastore", {"metadata": {"name": "nic"}, "spec": spec}, None)
    volume = {"datastoreRef": {"name": "nic"}, "export": "db-data"}
    pair.host.create("volume", {"metadata": {"name": "db-data"}, "spec": volume})
    found = pair.host.wait_for("volume", "db-data", is_ready)
    assert found["status"]["capacityBytes"] == 64 * MIB
    disks = [{"name": "data", "bus": "nvme", "volumeRef": {"name": "db-data"}}]
    guest(pair, "db", disks)
    assert pair.host.guest_shell("db", "cat /sys/class/nvme/nvme0/serial").split() == ["pf0nvme1"]
    write_blocks(pair, "db", "/dev/nvme0n1", 0, 50)
    pair.host.wait_for_console("db", "wrote=50")
    check_blocks(pair, "db", "/dev/nvme0n1", 50)
    # It is nobody else's: not another VM's, nor the host's.
    pair.host.create("vm", pair.host.micro_vm("thief", disks=disks))
    pair.host.wait_for("vm", "thief", lambda vm: "VolumeInUse" in str(dig(vm, "status", "conditions")))
    pair.host.delete("vm", "thief")
    spec = {"type": "NVMe", "nvme": {"serial": "pf0nvme1"}}
    pair.host.create("datastore", {"metadata": {"name": "theft"}, "spec": spec}, None)
    pair.host.wait_for(
        "datastore", "theft", lambda one: "NamespaceOfAVM" in str(dig(one, "status", "conditions")), namespace=None
    )


def test_when_the_stall_is_over_the_guest_is_told(pair: Pair, target: Target) -> None:
    pair.nic.patch("nvmenamespace", "db-data", {"spec": {"stallSeconds": 1}}, None)
    pair.nic.patch("nvmenamespace", "shared", {"spec": {"stallSeconds": 1}}, None)
    write = "dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=1 seek=9000 conv=fsync 2>&1 && echo do''ne || echo no''t"
    assert "done" in pair.host.guest_shell("db", write)
    target.close()
    state(pair, "db-data", "Failed")
    assert "not" in pair.host.guest_shell("db", write)
    target.open()
    state(pair, "db-data", "Online")
    assert "done" in pair.host.guest_shell("db", f"until {write.partition(' ||')[0]}; do :; done")
