"""The whole way: a guest's NVMe drive, a Volume of a real daemon, an export of an emulated NIC that comes and goes."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from carmel.client.objects import JsonObject, condition
from carmel.smartnic.nvme.functions import Limits, Show
from carmel.units import MIB
from tests.daemon import Daemon, is_ready, not_ready_because, running_daemon
from tests.fakes.nvme_contract import UID
from tests.system.daemon.test_virtual_machines import type_at
from tests.system.smartnic.nvme.conftest import NicWorld

_BLOCKS = 120
_WRITE = (
    "until [ -b /dev/nvme0n1 ]; do :; done; "
    "yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; n=0; "
    f"while [ $n -lt {_BLOCKS} ]; do dd if=/tmp/block of=/dev/nvme0n1 bs=64k seek=$n conv=fsync 2>/dev/null || "
    "echo bad=$n; n=$((n + 1)); echo wrote=$n; done; "
    "dmesg | grep -c 'I/O error' | sed 's/^/errors=/'; echo all $((6 * 7))"
)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon() as daemon:
        daemon.make_micro_image()
        yield daemon


def make_datastore(daemon: Daemon, nic: NicWorld, stall_seconds: int) -> None:
    words = {"username": nic.psk.username, "psk": nic.psk.key}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in words.items()}
    daemon.create("secret", {"metadata": {"name": "nic"}, "data": data}, "carmel-system")
    nbd = {
        "address": "127.0.0.1",
        "tlsSecretRef": {"name": "nic"},
        "exports": [{"name": "pf0nvme0", "port": nic.port}],
        "stallSeconds": stall_seconds,
    }
    daemon.create("datastore", {"metadata": {"name": "nic"}, "spec": {"type": "NBD", "nbd": nbd}}, None)
    volume = {"datastoreRef": {"name": "nic"}, "export": "pf0nvme0"}
    daemon.create("volume", {"metadata": {"name": "far"}, "spec": volume})
    daemon.wait_for("volume", "far", is_ready)


def boot(daemon: Daemon, name: str) -> JsonObject:
    disks = [{"name": "pf0nvme0", "bus": "nvme", "volumeRef": {"name": "far"}}]
    daemon.create("vm", daemon.micro_vm(name, disks=disks))
    vm = daemon.wait_for("vm", name, is_ready)
    daemon.wait_for_console(name, "carmel micro: ready")
    return vm


async def test_a_guest_waits_for_its_nic_and_loses_nothing(nic: NicWorld, daemon: Daemon) -> None:
    disk, slowly = nic.disk(size=16 * MIB), Limits(write_bytes=2_000_000)
    what = Show(UID, "pf0nvme0", disk, 512)
    async with nic.running() as functions:
        await functions.show(replace(what, limits=slowly))
        make_datastore(daemon, nic, stall_seconds=120)
        vm = boot(daemon, "one")
        # It is seen by the name that the host finds a function by.
        type_at(daemon, vm["metadata"]["uid"], "cat /sys/class/nvme/nvme0/serial; echo named", "pf0nvme0")
        # No second VM has it, nor can it be deleted.
        daemon.create("vm", daemon.micro_vm("two", disks=[{"name": "d", "bus": "nvme", "volumeRef": {"name": "far"}}]))
        daemon.wait_for("vm", "two", not_ready_because("VolumeInUse"))
        daemon.delete("vm", "two")
        type_at(daemon, vm["metadata"]["uid"], _WRITE, "wrote=2")
        (exporter,) = nic.exporters()
        os.kill(exporter.pid, signal.SIGKILL)
        assert await asyncio.wait_for(nic.ended.get(), 10) == UID
        await functions.show(what)
        said = daemon.wait_for_console("one", "all 42")
    assert re.findall(r"bad=\d+", said) == []
    assert re.findall(r"errors=\d+", said) == ["errors=0"]
    written = await asyncio.to_thread(disk.read_bytes)
    assert all(written[block * 65536 :].startswith(b"carmel" * 1000) for block in range(_BLOCKS))


async def test_when_the_stall_is_over_the_guest_is_told(nic: NicWorld, daemon: Daemon) -> None:
    async with nic.running() as functions:
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        make_datastore(daemon, nic, stall_seconds=2)
        vm = boot(daemon, "one")
        uid = vm["metadata"]["uid"]
        write = (
            "dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=1 conv=fsync && echo done $((6 * 7)) || echo not $((6 * 7))"
        )
        type_at(daemon, uid, f"until [ -b /dev/nvme0n1 ]; do :; done; {write}", "done 42")
        await functions.hide(UID)
        type_at(daemon, uid, write, "not 42")
        # The VM runs on, and its disk is the same one when the NIC is back.
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        type_at(daemon, uid, f"until {write.partition(' ||')[0]}; do :; done", "done 42")
        assert condition(daemon.get("vm", "one"), "Ready")["status"] == "True"
