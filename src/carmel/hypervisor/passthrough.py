"""Functions of the host that VMs have: QEMU's account opens their IOMMU groups, and only theirs.

Whoever wants to give a function to a VM has it driven by vfio-pci first; here its group's device file is handed over
for the run (Documentation/driver-api/vfio.rst). ``/dev/vfio/vfio`` is everybody's by the kernel's own rule: without a
group it is good for nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from carmel.errors import Refused
from carmel.hypervisor.account import Account

_DRIVER = "vfio-pci"


class VfioGroups:
    """Device files of groups. ``root``: where ``sys`` and ``dev`` are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._devices = root / "sys/bus/pci/devices"
        self._groups = root / "dev/vfio"

    def hand_over(self, address: str, account: Account) -> None:
        """Let QEMU open the function's group. Can be done again.

        Raises ``Refused`` (``FunctionMissing``, ``FunctionNotBound``, ``NoIOMMU``, ``NotPermitted``).
        """
        device = self._devices / address
        if not device.exists():
            raise Refused(
                f"this host has no PCI function {address}",
                code="FunctionMissing",
                hint="was its SmartNIC or drive restarted, or taken out?",
            )
        driver = _name_behind(device / "driver")
        if driver != _DRIVER:
            raise Refused(
                f"PCI function {address} is driven by {driver or 'nothing'}, not by {_DRIVER}: no VM can have it",
                code="FunctionNotBound",
            )
        file = self._file(address)
        if file is None or not file.exists():
            raise Refused(
                f"PCI function {address} is in no IOMMU group: no VM can have it",
                code="NoIOMMU",
                hint="switch the IOMMU (SMMU, VT-d, AMD-Vi) on in the firmware, and in the kernel if it was told off",
            )
        if account.uid is not None and account.gid is not None:
            os.chown(file, account.uid, account.gid)
            file.chmod(0o600)
        elif not os.access(file, os.R_OK | os.W_OK):
            raise Refused(
                f"{file} may not be opened: functions of the host are given to VMs by root",
                code="NotPermitted",
                hint=f"run carmeld as root, or give the file to its user: chown $USER {file}",
            )

    def take_back(self, addresses: Iterable[str]) -> None:
        """Only root opens the groups of these functions from now on; whoever has them open keeps them."""
        if os.geteuid() != 0:
            return
        for address in addresses:
            file = self._file(address)
            if file is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.chown(file, 0, 0)

    def _file(self, address: str) -> Path | None:
        group = _name_behind(self._devices / address / "iommu_group")
        return self._groups / group if group is not None else None


def _name_behind(link: Path) -> str | None:
    try:
        return link.readlink().name
    except OSError:
        return None
