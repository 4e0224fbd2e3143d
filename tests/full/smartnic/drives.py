"""NVMe functions of the lab's SmartNIC: what shows them, and what a guest writes to them and reads again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready
from tests.full.smartnic.pair import LAB, NIC, Pair
from tests.full.smartnic.target import HOST_NQN, NQN, PORT


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


@contextlib.contextmanager
def stalls(pair: Pair, seconds: int, *names: str) -> Iterator[None]:
    """These namespaces wait so long for what is away."""
    before = {name: pair.nic.get("nvmenamespace", name, None)["spec"]["stallSeconds"] for name in names}
    for name in names:
        pair.nic.patch("nvmenamespace", name, {"spec": {"stallSeconds": seconds}}, None)
    yield
    for name, own in before.items():
        pair.nic.patch("nvmenamespace", name, {"spec": {"stallSeconds": own}}, None)


def write_blocks(pair: Pair, vm: str, device: str, first: int, count: int) -> None:
    """Begins; the guest says each block that is on its disk."""
    script = (
        f"until [ -b {device} ]; do :; done; yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; "
        f"(n={first}; while [ $n -lt {first + count} ]; do dd if=/tmp/block of={device} bs=64k seek=$n conv=fsync "
        "2>/dev/null || echo bad=$n >/dev/console; n=$((n + 1)); echo wrote=$n >/dev/console; done) &"
    )
    pair.host.guest_shell(vm, script)


def check_blocks(pair: Pair, vm: str, device: str, count: int, *, first: int = 0) -> None:
    """All of them are there, and the guest saw no error."""
    script = (
        "yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; echo 3 >/proc/sys/vm/drop_caches; "
        f"good=0; n={first}; while [ $n -lt {first + count} ]; do dd if={device} bs=64k skip=$n count=1 2>/dev/null | "
        "cmp -s - /tmp/block && good=$((good + 1)); n=$((n + 1)); done; echo good=$good; "
        "dmesg | grep -c 'I/O error' | sed s/^/errors=/"
    )
    said = pair.host.guest_shell(vm, script)
    assert re.findall(r"good=\d+|errors=\d+", said) == [f"good={count}", "errors=0"], said
