"""A machine with UEFI and no disk but what a SmartNIC's function shows, as a real qemu-storage-daemon exports it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from carmel.smartnic.nvme.functions import Show
from carmel.storage.blockcopy import copy_onto
from carmel.units import MIB
from tests.daemon import Daemon, is_ready, running_daemon
from tests.fakes.nvme_contract import UID
from tests.microdisk import micro_disk
from tests.system.lab.shell import run_in_shell
from tests.system.smartnic.nvme.conftest import NicWorld

HOST, READY, SECONDS = "host", "carmel micro: ready", 120.0


def make_host(outer: Daemon, nic: NicWorld) -> None:
    words = {"username": nic.psk.username, "psk": nic.psk.key}
    outer.create("secret", {"metadata": {"name": "nic"}, "stringData": words}, "carmel-system")
    exports = [{"name": "pf0nvme0", "port": nic.port}]
    nbd = {"address": "127.0.0.1", "tlsSecretRef": {"name": "nic"}, "exports": exports, "stallSeconds": 300}
    outer.create("datastore", {"metadata": {"name": "nic"}, "spec": {"type": "NBD", "nbd": nbd}}, None)
    spec = {"datastoreRef": {"name": "nic"}, "export": "pf0nvme0"}
    outer.create("volume", {"metadata": {"name": "boot"}, "spec": spec})
    disks = [{"name": "pf0nvme0", "bus": "nvme", "volumeRef": {"name": "boot"}}]
    memory, firmware = {"size": "256Mi"}, {"type": "UEFI"}
    outer.create("vm", {"metadata": {"name": HOST}, "spec": {"memory": memory, "firmware": firmware, "disks": disks}})


def host_shell(outer: Daemon, script: str) -> str:
    return run_in_shell(outer.client, HOST, script, SECONDS)


def kill_exporter(nic: NicWorld) -> None:
    for process in nic.exporters():
        subprocess.run(["kill", "-9", str(process.pid)], check=True)


@pytest.mark.timeout(400)
async def test_it_boots_waits_for_what_is_away_and_boots_again(nic: NicWorld) -> None:
    made = await micro_disk(nic.folder)
    raw, drive = nic.folder / "raw", nic.disk(size=128 * MIB)
    await asyncio.to_thread(_expand, made.path, raw)
    with raw.open("rb") as file:
        assert copy_onto(file, made.virtual_size_bytes, drive, lambda _done: True)
    show = Show(UID, "pf0nvme0", drive, 512)
    async with nic.running() as functions:
        with running_daemon() as outer:
            # It is there before its disk is, and waits for it.
            await asyncio.to_thread(make_host, outer, nic)
            await functions.show(show)
            await asyncio.to_thread(outer.wait_for, "vm", HOST, is_ready)
            await asyncio.to_thread(outer.wait_for_console, HOST, READY, SECONDS)
            serial = "cat /sys/class/nvme/*/serial; [ -d /sys/firmware/efi ] && echo uefi"
            assert (await asyncio.to_thread(host_shell, outer, serial)).split() == ["pf0nvme0", "uefi"]
            kill_exporter(nic)
            write = (
                "(yes carmel | head -c 1048576 | dd of=/dev/nvme0n1 bs=64k seek=1600 conv=fsync 2>/dev/null && "
                "echo wri''tten >/dev/console || echo lo''st >/dev/console) &"
            )
            await asyncio.to_thread(host_shell, outer, write)
            await asyncio.wait_for(nic.ended.get(), SECONDS)
            await functions.show(show)
            await asyncio.to_thread(outer.wait_for_console, HOST, "written", SECONDS)
            await asyncio.to_thread(_boot_again, outer)
            check = (
                "dd if=/dev/nvme0n1 bs=64k skip=1600 count=16 2>/dev/null | grep -c carmel | sed s/^/lines=/; "
                "dmesg | grep -c 'I/O error' | sed s/^/errors=/"
            )
            said = await asyncio.to_thread(host_shell, outer, check)
            assert re.findall(r"lines=\d+|errors=\d+", said) == [f"lines={1048576 // len('carmel_')}", "errors=0"], said
            await asyncio.to_thread(_end, outer)


def _expand(image: Path, raw: Path) -> None:
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)


def _boot_again(outer: Daemon) -> None:
    outer.patch("vm", HOST, {"spec": {"restartRequestedAt": "2100-01-01T00:00:00Z", "powerOffMode": "Hard"}})
    outer.wait_for_console(HOST, READY, SECONDS, times=2)
    outer.wait_for("vm", HOST, is_ready)


def _end(outer: Daemon) -> None:
    outer.delete_all_vms()
    outer.delete("volume", "boot")
    outer.wait_no_volumes()
