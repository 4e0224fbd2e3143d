"""The lab ``smartnic`` with remote storage, as the measurement of its offload needs it: the target is nvmet on the NIC.

The host reaches it over the internal link by an initiator of its own (``tcp``), and through the NIC (``nic``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bench.offload_samples import Watched
from carmel.client.objects import JsonObject
from carmel.smartnic.nvme.fabrics import Target as Way
from carmel.smartnic.nvme.fabrics import connect_options
from tests.daemon import is_ready
from tests.full.smartnic.drives import offer, plug
from tests.full.smartnic.pair import NIC, Pair
from tests.full.smartnic.target import HOST_NQN, NQN, PORT, Target

PATIENCE_SECONDS = 600
NOTHING = "/dev/nullb0"
"""A disk of the host that does nothing."""
_LINK = "192.168.100.2"
_OF_HOST, _OF_VM = "pf0nvme0", "pf0nvme1"
_PLACE = "/mnt/remote"
_FILLED_MIB = 16
"""As much as one pass of the measurement asks for."""


@dataclass(frozen=True, slots=True)
class Disks:
    """By way: the ``devices``, on the host or in the VM of that name, and the ``pids`` of these VMs' QEMUs."""

    pair: Pair
    devices: dict[str, str]
    pids: dict[str, int] = field(default_factory=dict)

    def watched(self, way: str) -> tuple[Watched, Watched]:
        """Host and NIC. VMs of other ways stand still."""
        others = tuple(pid for name, pid in self.pids.items() if name != way)
        return Watched(self.pair.host, still=others), Watched(self.pair.nic)


def drives(pair: Pair) -> Disks:
    """The same namespace of the target, by the host's own initiator and as a function."""
    Target(pair.nic).start()
    ports = "/sys/kernel/config/nvmet/ports"
    pair.nic.shell(
        f"mkdir {ports}/2; cd {ports}/2; echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo {_LINK} >addr_traddr;"
        f"echo {PORT} >addr_trsvcid; ln -s ../../subsystems/{NQN} subsystems/{NQN}"
    )
    offer(pair, "shared", 1, _OF_HOST)
    plug(pair, _OF_HOST)
    options = connect_options(Way(_LINK, PORT, NQN, HOST_NQN), PATIENCE_SECONDS)
    said = pair.host.shell(
        f"modprobe -a nvme-tcp null_blk; echo -n {options} >/dev/nvme-fabrics\n"
        "s=/sys/class/nvme-subsystem\n"
        f"until t=$(ls -d $(grep -l {NQN} $s/*/subsysnqn | xargs dirname)/nvme*n1); do sleep 1; done 2>/dev/null\n"
        f"f=$(ls -d $(grep -l {_OF_HOST} /sys/class/nvme/*/serial | xargs dirname)/nvme*n1)\n"
        "echo tcp=/dev/${t##*/} nic=/dev/${f##*/}"
    )
    found = re.search(r"tcp=(/dev/nvme\d+n1) nic=(/dev/nvme\d+n1)", said)
    if found is None:
        raise RuntimeError(f"the host has not both drives: {said}")
    return Disks(pair, {"tcp": found[1], "nic": found[2]})


def guests(pair: Pair) -> Disks:
    """A VM for each way, called like it."""
    # Waiting for a guest that is idle would be counted as the host's own work.
    pair.host.shell("echo 0 >/sys/module/kvm/parameters/halt_poll_ns")
    device = _drive_of_host(pair)
    said = pair.host.shell(
        f"/sbin/mke2fs -q -t ext4 -F {device} && mkdir -p {_PLACE} && mount {device} {_PLACE} && echo do''ne"
    )
    if "done" not in said:
        raise RuntimeError(f"no file system on {device}: {said}")
    here: JsonObject = {"type": "Directory", "directory": {"path": _PLACE}}
    pair.host.create("datastore", {"metadata": {"name": "remote"}, "spec": here}, None)
    pair.host.create("volume", {"metadata": {"name": "tcp"}, "spec": _volume("remote", size="64Mi")})
    offer(pair, "own", 2, _OF_VM, owner={"namespace": "default", "name": "nic"})
    plug(pair, _OF_VM)
    there: JsonObject = {"type": "SmartNIC", "smartNICRef": {"name": NIC}}
    pair.host.create("datastore", {"metadata": {"name": "nic"}, "spec": there}, None)
    pair.host.create("volume", {"metadata": {"name": "nic"}, "spec": _volume("nic", export="own")})
    pids = {}
    for way, bus in (("tcp", "virtio"), ("nic", "nvme")):
        pair.host.wait_for("volume", way, is_ready)
        disks = [{"name": "data", "bus": bus, "volumeRef": {"name": way}}]
        pair.host.create("vm", pair.host.micro_vm(way, disks=disks))
        pids[way] = pair.host.process(pair.host.wait_for("vm", way, is_ready)).pid
        pair.host.wait_for_console(way, "carmel micro: ready")
    devices = {"tcp": "/dev/vda", "nic": "/dev/nvme0n1"}
    for way, device in devices.items():
        # What was never written is read from nowhere.
        fill = f"dd if=/dev/zero of={device} bs=128k count={_FILLED_MIB * 8} oflag=direct conv=fsync"
        pair.host.guest_shell(way, fill, PATIENCE_SECONDS)
    return Disks(pair, devices, pids)


def _drive_of_host(pair: Pair) -> str:
    said = pair.host.shell(f"ls -d $(grep -l {NQN} /sys/class/nvme-subsystem/*/subsysnqn | xargs dirname)/nvme*n1")
    return f"/dev/{said.split()[-1].rpartition('/')[2]}"


def _volume(datastore: str, **more: str) -> JsonObject:
    return {"datastoreRef": {"name": datastore}, **more}
