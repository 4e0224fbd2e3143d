"""NICs and disks that are plugged into a guest that runs, and unplugged."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.hypervisor import unplugging
from carmel.hypervisor.config import DiskConfig, NbdDiskConfig, NicConfig
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.machine import Machine
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus
from tests.fakes.plugs_contract import Plugs, check_plugs
from tests.nbdserver import PSK
from tests.system.hypervisor.conftest import ConfigMaker, House, answer, until_prompt

FIRST = NicConfig("eth0", "52:54:00:00:00:01", {"type": "user"})
SECOND = NicConfig("eth1", "52:54:00:00:00:02", {"type": "user"})


def image(paths: Paths, name: str) -> Path:
    """A disk image that QEMU's account may get at."""
    folder = paths.state.parent / "images"
    folder.mkdir(exist_ok=True)
    place = folder / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", place, "16M"], check=True)
    return place


def disk(place: Path, name: str = "d", bus: DiskBus = DiskBus.VIRTIO) -> DiskConfig:
    return DiskConfig(name, bus, place, "qcow2", f"serial-{name}")


async def guest_says(hypervisor: QemuHypervisor, machine: Machine, command: bytes, wanted: bytes) -> None:
    stream = await hypervisor.open_console(machine.launch.uid)
    try:
        await answer(stream, command + b"\n", wanted)
    finally:
        await stream.close()


async def test_contract(house: House, make_config: ConfigMaker, paths: Paths) -> None:
    hypervisor = house.hypervisor()

    async def successor() -> QemuHypervisor:
        await hypervisor.close()
        following = house.hypervisor()
        await following.adopt()
        return following

    async def up(machine: Machine) -> None:
        await until_prompt(hypervisor, machine.launch.uid)

    for number in range(4):
        image(paths, f"d{number}")
    plugs = Plugs(make_config(nics=(FIRST,)), SECOND, disk(image(paths, "d")), up)
    await check_plugs(hypervisor, successor, plugs)


async def test_a_nic_behind_a_port_goes_and_comes(house: House, make_config: ConfigMaker) -> None:
    """With an IOMMU, also those that were there from the start; the new one comes by an open file."""
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config(nics=(FIRST,), iommu=True))
    await until_prompt(hypervisor, machine.launch.uid)
    await machine.unplug_nic("eth0")
    assert list(machine.nics) == []
    assert [netdev for netdev in await netdevs(machine) if netdev == "net0"] == []
    ours, its = socket.socketpair()
    with ours, its:
        netdev = {"type": "socket", "fd": str(its.fileno())}
        await machine.plug_nic(NicConfig("eth1", SECOND.mac, netdev, descriptors=(its.fileno(),)))
        its.close()
        await guest_says(
            hypervisor,
            machine,
            b"until ip link set eth0 up; do :; done; arping -c 3 -w 3 -I eth0 10.1.2.3; "
            b"ls /sys/class/net/eth0/device/../iommu_group/devices | wc -l | sed s/^/alone-/",
            b"alone-2",
        )
        ours.settimeout(10)
        frame = await asyncio.to_thread(ours.recv, 4096)
        # A length of four bytes, then the frame: to all, or to IPv6 routers, from the NIC.
        assert frame[4 + 6 :][:6].hex(":") == SECOND.mac
    await machine.unplug_nic("eth1")
    await machine.kill("the test is over")


async def test_a_plug_that_fails_leaves_nothing(house: House, make_config: ConfigMaker, paths: Paths) -> None:
    hypervisor = house.hypervisor()
    place = image(paths, "d")
    holder = await hypervisor.launch(make_config(disks=(disk(place),)), paused=True)
    machine = await hypervisor.launch(make_config(), paused=True)
    before = await everything(machine)
    for doing, code in (
        (machine.plug_disk(disk(place)), "DiskInUse"),
        (machine.plug_disk(disk(place.with_name("missing"))), "DiskMissing"),
        (machine.plug_disk(NbdDiskConfig("far", DiskBus.NVME, "127.0.0.1", 1, "x", PSK, "far")), "NBDUnreachable"),
        (machine.plug_nic(replace(SECOND, mac="no address")), "QMPFailed"),
        (machine.plug_nic(replace(SECOND, netdev={"type": "nonsense"})), "QMPFailed"),
        (machine.plug_nic(NicConfig("f", SECOND.mac, {}, function="0000:ff:1f.7")), "FunctionMissing"),
        (machine.plug_nic(NicConfig("s", SECOND.mac, {"type": "socket", "fd": "0"}, descriptors=(0,))), "QMPFailed"),
    ):
        with pytest.raises(CarmelError) as caught:
            await doing
        assert caught.value.code == code
        assert await everything(machine) == before
        assert machine.record.devices == ()
    await holder.kill("the test is over")
    await machine.plug_disk(disk(place))
    assert list(machine.disks) == ["d"]
    await machine.kill("the test is over")


async def test_what_a_daemon_died_in_is_cleared_up(house: House, make_config: ConfigMaker, paths: Paths) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config(), paused=True)
    before = await everything(machine)
    # Killed when half of a NIC was plugged, and when all of a disk was that the record does not know so yet.
    await machine.execute("netdev_add", {"type": "user", "id": "plug-port0-net"})
    half = Device(DeviceKind.NIC, "eth1", "plug-port0", "port0", netdev="plug-port0-net", plugged=False)
    await machine.keep_devices((half,))
    await machine.plug_disk(disk(image(paths, "d")))
    whole = replace(machine.record.devices[-1], plugged=False) if machine.record.devices else None
    assert whole is not None
    await machine.keep_devices((half, whole))
    await hypervisor.close()

    (again,) = await house.hypervisor().adopt()
    assert isinstance(again, QemuMachine)
    assert (list(again.nics), list(again.disks)) == ([], ["d"])
    assert [name for name in await everything(again) if "port0" in name] == [name for name in before if "port0" in name]
    await again.kill("the test is over")


async def test_a_device_that_the_guest_gives_up_by_itself_is_gone(
    house: House, make_config: ConfigMaker, paths: Paths
) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config())
    await until_prompt(hypervisor, machine.launch.uid)
    await machine.plug_disk(disk(image(paths, "d")))
    async with asyncio.timeout(60), hypervisor.changes() as changes:
        await guest_says(
            hypervisor,
            machine,
            b"until [ -e /dev/vda ]; do :; done; cd /sys/bus/pci/slots; "
            b"for s in *; do echo 0 >$s/power; done; echo n-$((1))",
            b"n-1",
        )
        async for change in changes:
            if change.what == "devices":
                break
    assert list(machine.disks) == []
    assert not [name for name in await everything(machine) if name.startswith("plug-")]
    await machine.kill("the test is over")


async def test_a_guest_that_keeps_a_device_is_told_of(
    house: House, make_config: ConfigMaker, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unplugging, "UNPLUG_SECONDS", 1.0)
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config())
    await until_prompt(hypervisor, machine.launch.uid)
    await machine.plug_disk(disk(image(paths, "d")))
    await guest_says(
        hypervisor,
        machine,
        b"until [ -e /dev/vda ]; do :; done; cd /sys/bus/pci_express/drivers/pciehp; "
        b"for p in 0*; do echo $p >unbind; done; "
        b"echo deaf-$((1))",
        b"deaf-1",
    )
    with pytest.raises(Unavailable) as caught:
        await machine.unplug_disk("d")
    assert caught.value.code == "GuestKeepsDevice"
    assert list(machine.disks) == ["d"]
    # Nobody waits for it when the VM is ended.
    monkeypatch.setattr(unplugging, "UNPLUG_SECONDS", 600.0)
    waiting = asyncio.create_task(machine.unplug_disk("d"))
    while not machine.monitor.departures.watched:  # noqa: ASYNC110 - nothing tells that somebody waits
        await asyncio.sleep(0)
    await machine.kill("the test is over")
    with pytest.raises(Refused) as ended:
        await waiting
    assert ended.value.code == "MachineNotRunning"


async def netdevs(machine: QemuMachine) -> list[str]:
    """What QEMU says of it to people: there is no such question for programs."""
    said = str(await machine.execute("human-monitor-command", {"command-line": "info network"}))
    return [line.strip(" \\").split(":")[0] for line in said.splitlines()]


async def everything(machine: QemuMachine) -> list[str]:
    """Devices, back ends, block nodes and objects that QEMU has."""
    found = await netdevs(machine)
    for path in ("/machine/peripheral", "/objects"):
        found += [one["name"] for one in await machine.execute("qom-list", {"path": path})]
    found += [node["node-name"] for node in await machine.execute("query-named-block-nodes")]
    return sorted(found)
