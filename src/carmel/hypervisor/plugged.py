"""What is plugged into a VM: the launch record's list of devices, and what is behind each in QEMU.

The record is first: it has a device before QEMU does, and for as long. So whatever a daemon was killed in, the next one
finds what to finish or to clear away with ``settle``.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from carmel.errors import InsufficientStorage, Refused
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.failures import QMPFailed
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.nbdservers import disconnect_if_away

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

_NOT_THERE = re.compile(r"not found|failed to find node", re.IGNORECASE)


async def settle(machine: QemuMachine) -> None:
    """Make the record and what is behind devices fit the devices that QEMU really has."""
    for device in machine.record.devices or ():
        present = await is_present(machine, device)
        if not present:
            await drop(machine, device)
        elif not device.plugged:
            await keep(machine, replace(device, plugged=True))


def devices_of(machine: QemuMachine) -> tuple[Device, ...]:
    """Raises ``Refused`` (``NotPluggable``) if it is not known."""
    devices = machine.record.devices
    if devices is None:
        raise Refused(
            "the VM was started by an older Carmel, which did not write down what could be plugged",
            code="NotPluggable",
            hint="restart the VM",
        )
    return devices


async def keep(machine: QemuMachine, device: Device) -> None:
    """Have ``device`` in the record, in place of one with its id. Raises ``InsufficientStorage``; then it has not."""
    devices = devices_of(machine)
    known = [one.id for one in devices]
    if device.id in known:
        kept = tuple(device if one.id == device.id else one for one in devices)
    else:
        kept = (*devices, device)
    await _save(machine, kept)


async def drop(machine: QemuMachine, device: Device) -> None:
    """Remove what was behind a device that is not there (any more), and its word in the record."""
    await disconnect_if_away(machine, device)
    for command, arguments in _removals(device):
        try:
            await machine.execute(command, arguments)
        except QMPFailed as exc:
            # What a plug did not come to is not there.
            if _NOT_THERE.search(exc.message) is None:
                raise
    for name in device.objects:
        await asyncio.to_thread(shutil.rmtree, machine.paths.key_folder(name), ignore_errors=True)
    if device.function is not None:
        await asyncio.to_thread(machine.groups.take_back, [device.function])
    # Another disk may have its port, and so its id.
    machine.servers_away.pop(device.id, None)
    others = tuple(one for one in devices_of(machine) if one.id != device.id)
    await _save(machine, others)


def _removals(device: Device) -> Iterator[tuple[str, dict[str, object]]]:
    if device.netdev is not None:
        yield "netdev_del", {"id": device.netdev}
    for node in device.nodes:
        yield "blockdev-del", {"node-name": node}
    for name in device.objects:
        yield "object-del", {"id": name}


async def is_present(machine: QemuMachine, device: Device) -> bool:
    """Whether QEMU has it; what it stands on may be there without."""
    named = await machine.execute("qom-list", {"path": "/machine/peripheral"})
    return any(one["name"] == device.id for one in named)


async def _save(machine: QemuMachine, devices: tuple[Device, ...]) -> None:
    try:
        await machine.keep_devices(devices)
    except OSError as exc:
        raise InsufficientStorage(
            f"{machine.paths.launch_record} cannot be written: {exc.strerror}",
            code="StateNotWritable",
            hint="make room in the state directory",
        ) from exc


def require_live(machine: QemuMachine) -> None:
    """Raises ``Refused`` (``MachineNotRunning``)."""
    machine.require_process()
    if machine.state not in (MachineState.RUNNING, MachineState.PAUSED):
        raise Refused("the VM came to its end: nothing can be plugged", code="MachineNotRunning")


def word(kind: DeviceKind) -> str:
    return "NIC" if kind is DeviceKind.NIC else "disk"
