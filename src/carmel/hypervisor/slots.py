"""Which PCI address each device gets, so that plugging one never moves another.

A guest names its NICs and disks by their addresses. The root bus has 32 slots with 8 functions each, slot 0 is the
host bridge's. A slot is only looked at if its function 0 is there.

======  ==============================
slots   device
======  ==============================
1-8     NIC 0 to 7, or a port for each
9-12    controllers (``_FIXED``)
13      ports for hot-plug
14      CD-ROMs
16-31   disks, eight a slot
======  ==============================

With an IOMMU, disks share slots 16 and 17 only, 18 to 23 have a port for an NVMe drive each, 24 to 31 one for hot-plug.
For functions of one slot are one group to a guest that was started with a device tree (Linux 6.1 enables ACS there only
for what it finds later), and then two devices of one slot could not be given to two VMs.
"""

from __future__ import annotations

from carmel.errors import Refused

_FUNCTIONS = 8
_FIRST_NIC, _NICS = 1, 8
_FIXED = {"channels": (9, 0), "rng": (9, 1), "panic": (9, 2), "scsi": (10, 0), "usb0": (11, 0), "usb1": (11, 1)}
_PORTS = 13
_CDROMS = 14
_FIRST_DISK, _LAST_SLOT = 16, 31
_FIRST_LONE_DRIVE, _FIRST_LONE_PORT = 18, 24


def hot_plug_ports(*, iommu: bool) -> int:
    """How many devices can be plugged while the guest runs. One that hands devices on to VMs of its own needs more."""
    return _LAST_SLOT - _FIRST_LONE_PORT + 1 if iommu else 4


class Slots:
    """Hands out addresses as the ``bus``, ``addr`` and ``multifunction`` properties of ``-device``."""

    def __init__(self, *, iommu: bool = False) -> None:
        self._iommu = iommu
        self._last_disk = _FIRST_LONE_DRIVE - 1 if iommu else _LAST_SLOT
        self._next_disk = 0
        self._next_drive = _FIRST_LONE_DRIVE

    def nic(self, index: int) -> dict[str, object]:
        if index >= _NICS:
            raise Refused(f"a VM has at most {_NICS} NICs", code="TooManyDevices", field="spec.networks")
        return _address(_FIRST_NIC + index, 0)

    def fixed(self, name: str) -> dict[str, object]:
        return _address(*_FIXED[name], shared=True)

    def port(self, index: int) -> dict[str, object]:
        return _address(_FIRST_LONE_PORT + index, 0) if self._iommu else _address(_PORTS, index, shared=True)

    def cdrom(self, index: int) -> dict[str, object]:
        if index >= _FUNCTIONS:
            raise Refused(f"a VM has at most {_FUNCTIONS} CD-ROMs", code="TooManyDevices")
        return _address(_CDROMS, index, shared=True)

    def disk(self) -> dict[str, object]:
        """Disks come one behind the other: a disk added at the end moves none."""
        slot, function = divmod(self._next_disk, _FUNCTIONS)
        if _FIRST_DISK + slot > self._last_disk:
            most = (self._last_disk - _FIRST_DISK + 1) * _FUNCTIONS
            raise Refused(f"this VM has at most {most} disks", code="TooManyDevices", field="spec.disks")
        self._next_disk += 1
        return _address(_FIRST_DISK + slot, function, shared=True)

    def drive(self) -> dict[str, object]:
        """For a disk that is a controller of its own, or for the port of one that a guest with an IOMMU may hand on."""
        if not self._iommu:
            return self.disk()
        if self._next_drive >= _FIRST_LONE_PORT:
            most = _FIRST_LONE_PORT - _FIRST_LONE_DRIVE
            raise Refused(
                f"a VM with an IOMMU has at most {most} NVMe drives", code="TooManyDevices", field="spec.disks"
            )
        self._next_drive += 1
        return _address(self._next_drive - 1, 0)


def _address(slot: int, function: int, *, shared: bool = False) -> dict[str, object]:
    address: dict[str, object] = {"bus": "pcie.0", "addr": f"{slot:x}.{function}"}
    if shared and function == 0:
        address["multifunction"] = True
    return address
