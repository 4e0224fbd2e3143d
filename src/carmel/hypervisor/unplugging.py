"""NICs and disks that go while a VM runs.

Unplugging is a wish to the guest, whose kernel blinks for five seconds first (PCI Express Base Specification,
6.7.1.5), and done when QEMU says DEVICE_DELETED.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from carmel.errors import Refused, Unavailable
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.failures import QMPFailed
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.nbdservers import require_releasable
from carmel.hypervisor.plugged import devices_of, drop, is_present, require_live, word

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

UNPLUG_SECONDS = 15.0
"""Linux takes 5 s, and on a host with much to do some more."""
_BUSY_SECONDS = 0.2


async def unplug(machine: QemuMachine, kind: DeviceKind, name: str) -> None:
    """Raises as ``Machine.unplug_nic`` says."""
    device = next((one for one in devices_of(machine) if (one.kind, one.name) == (kind, name)), None)
    if device is None:
        return
    if device.port is None:
        raise Refused(
            f"the {word(kind)} {name} has been there since the VM's start, where nothing can be unplugged",
            code="NotPluggable",
            hint="it goes at the VM's next start",
        )
    if await is_present(machine, device):
        require_live(machine)
        if machine.state is not MachineState.RUNNING:
            raise Unavailable(
                f"the VM stands still: its guest cannot let go of the {word(kind)} {name}",
                code="GuestStandsStill",
                hint="let the VM run",
            )
        await require_releasable(machine, device)
        await _ask_guest(machine, device)
    await drop(machine, device)


async def _ask_guest(machine: QemuMachine, device: Device) -> None:
    with machine.monitor.departures.watch(device.id) as gone:
        try:
            async with asyncio.timeout(UNPLUG_SECONDS):
                while not await _wished(machine, device):  # noqa: ASYNC110 - nothing tells when it is ready
                    await asyncio.sleep(_BUSY_SECONDS)
                await gone
        except TimeoutError:
            raise Unavailable(
                f"the guest did not let go of the {word(device.kind)} {device.name} within {UNPLUG_SECONDS:g} s",
                code="GuestKeepsDevice",
                hint="is its kernel up, with PCIe hot-plug (pciehp)? A guest without keeps its devices until the VM is "
                "restarted",
            ) from None


async def _wished(machine: QemuMachine, device: Device) -> bool:
    """Tell the guest. False: it still blinks, for having been told something else just now (a plug)."""
    try:
        await machine.execute("device_del", {"id": device.id})
    except QMPFailed as exc:
        if exc.error_class == "DeviceNotFound":
            machine.monitor.departures.gone(device.id)
        elif "guest is busy" in exc.message:
            return False
        # It was told before: a second wish would take the first one back.
        elif "already in the process of unplug" not in exc.message:
            raise
    return True
