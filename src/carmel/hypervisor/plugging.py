"""NICs and disks that come while a VM runs.

Each sits behind a PCIe port that was there at the start. A plug is all or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import AnyDisk, DiskConfig, FunctionDiskConfig, NbdDiskConfig, NicConfig
from carmel.hypervisor.devices import (
    Device,
    DeviceKind,
    NbdServer,
    disk_options,
    function_options,
    key_object,
    nic_options,
    node_names,
    nodes_of,
    require_functions,
)
from carmel.hypervisor.diagnosis import explain_refusal
from carmel.hypervisor.directory import open_layers, write_key
from carmel.hypervisor.failures import QEMUNotAnswering, QMPFailed
from carmel.hypervisor.layers import Layer, disk_layers
from carmel.hypervisor.memlock import allow_to_lock, locked_bytes
from carmel.hypervisor.nbdservers import require_reachable
from carmel.hypervisor.netdevs import with_names
from carmel.hypervisor.plugged import devices_of, drop, keep, require_live, word
from carmel.resources.virtualmachine import DiskBus

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

_PLUGGABLE = (DiskBus.VIRTIO, DiskBus.NVME)


async def plug_nic(machine: QemuMachine, nic: NicConfig) -> None:
    """Raises as ``Machine.plug_nic`` says."""
    device = _new(machine, DeviceKind.NIC, nic.name, function=nic.function)
    _check_nic(machine, nic)
    if nic.function is None:
        device = replace(device, netdev=f"{device.id}-net")
    await _plug(machine, device, _NicPlug(machine, nic))


async def plug_disk(machine: QemuMachine, disk: AnyDisk) -> None:
    """Raises as ``Machine.plug_disk`` says."""
    function = disk.function if isinstance(disk, FunctionDiskConfig) else None
    device = _new(machine, DeviceKind.DISK, disk.name, function=function)
    if not isinstance(disk, FunctionDiskConfig) and disk.bus not in _PLUGGABLE:
        raise Refused(
            f"the disk {disk.name} cannot be plugged into a VM that runs: its bus is {disk.bus.value}",
            code="NotPluggable",
            hint="use the bus virtio or nvme, or restart the VM",
        )
    layers: Sequence[Layer] = ()
    if isinstance(disk, DiskConfig):
        layers = await asyncio.to_thread(disk_layers, disk)
    if (server := NbdServer.of(disk)) is not None:
        await require_reachable(server, disk.name)
        device = replace(device, objects=(f"{device.id}-tls",), server=server)
    device = replace(device, nodes=node_names(disk, f"{device.id}-disk", layers))
    await _plug(machine, device, _DiskPlug(machine, disk, layers))


class _NicPlug:
    """What a NIC's plug consists of."""

    def __init__(self, machine: QemuMachine, nic: NicConfig) -> None:
        self._machine = machine
        self._nic = nic

    async def prepare(self, device: Device) -> None:
        if device.netdev is None:
            return
        names = {descriptor: f"{device.id}-fd{descriptor}" for descriptor in self._nic.descriptors}
        try:
            for descriptor, name in names.items():
                await self._machine.monitor.qmp.send_file(name, descriptor)
            await self._machine.execute("netdev_add", {**with_names(self._nic.netdev, names), "id": device.netdev})
        except CarmelError:
            # Those that the back end took are not there any more.
            for name in names.values():
                with contextlib.suppress(CarmelError):
                    await self._machine.execute("closefd", {"fdname": name})
            raise

    def options(self, device: Device) -> dict[str, object]:
        return nic_options(self._nic, device, {"bus": device.port}, iommu=self._machine.record.iommu)


class _DiskPlug:
    """What a disk's plug consists of."""

    def __init__(self, machine: QemuMachine, disk: AnyDisk, layers: Sequence[Layer]) -> None:
        self._machine = machine
        self._disk = disk
        self._layers = layers

    async def prepare(self, device: Device) -> None:
        machine, disk = self._machine, self._disk
        if isinstance(disk, DiskConfig):
            account = machine.account()
            await asyncio.to_thread(lambda: open_layers(self._layers, account, read_only=disk.read_only))
        if isinstance(disk, NbdDiskConfig):
            folder = machine.paths.key_folder(device.objects[0])
            await asyncio.to_thread(write_key, folder, disk.psk, machine.account())
            await machine.execute("object-add", key_object(disk, device, str(folder)))
        for node in nodes_of(disk, device, self._layers):
            await machine.execute("blockdev-add", node)

    def options(self, device: Device) -> dict[str, object]:
        disk, place = self._disk, {"bus": device.port}
        if isinstance(disk, FunctionDiskConfig):
            return function_options(disk.function, device.id, place)
        return disk_options(disk, device, place, iommu=self._machine.record.iommu)


async def _plug(machine: QemuMachine, device: Device, parts: _NicPlug | _DiskPlug) -> None:
    await keep(machine, device)
    try:
        if device.function is not None:
            await _give_function(machine, device.function)
        await parts.prepare(device)
        await machine.execute("device_add", parts.options(device))
    except Exception as exc:
        # Of a QEMU that does not answer nobody knows what it has: ``settle`` asks it once it does.
        if not isinstance(exc, QEMUNotAnswering):
            await drop(machine, device)
        if isinstance(exc, QMPFailed):
            raise explain_refusal(exc, f"plug the {word(device.kind)} {device.name}") from exc
        raise
    await keep(machine, replace(device, plugged=True))


async def _give_function(machine: QemuMachine, function: str) -> None:
    await asyncio.to_thread(machine.groups.hand_over, function, machine.account())
    memory = await machine.execute("query-memory-size-summary")
    allow_to_lock(machine.pids[0], locked_bytes(int(memory["base-memory"])))


def _new(machine: QemuMachine, kind: DeviceKind, name: str, *, function: str | None) -> Device:
    """A device on a port that is free. Raises ``Refused`` (``AlreadyPlugged``, ``NoFreePort``)."""
    require_live(machine)
    if function is not None:
        require_functions(qemu_has_vfio=True, iommu=machine.record.iommu)
    devices = devices_of(machine)
    if any((one.kind, one.name) == (kind, name) for one in devices):
        raise Refused(f"the VM has a {word(kind)} {name} already", code="AlreadyPlugged")
    taken = {one.port for one in devices}
    port = next((one for one in machine.record.ports if one not in taken), None)
    if port is None:
        raise Refused(
            f"the VM has no port free for the {word(kind)} {name}: all {len(machine.record.ports)} are taken",
            code="NoFreePort",
            hint="unplug another, or restart the VM: what it starts with needs none of them",
        )
    return Device(kind, name, f"plug-{port}", port, function=function, plugged=False)


def _check_nic(machine: QemuMachine, nic: NicConfig) -> None:
    if nic.helper is not None:
        why = f"{nic.helper.name} can only be started with the VM"
    elif nic.group is not None and machine.account().uid is not None:
        why = "QEMU has the rights for it from its start, or not at all"
    else:
        return
    raise Refused(
        f"the NIC {nic.name} cannot be plugged into a VM that runs: {why}",
        code="NotPluggable",
        hint="it is there from the VM's next start on",
    )
