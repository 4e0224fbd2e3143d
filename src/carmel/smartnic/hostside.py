"""What of this host can be a NIC's function: PCI functions, what the kernel calls them, and whether it needs them.

Read afresh when functions are looked for. No netlink: all of it stands in files, so that a recorded machine can be
asked as well (Documentation/ABI/testing/sysfs-class-net; proc(5) on /proc/net/route; net/ipv6/addrconf.c on if_inet6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carmel.hardware.model import Nic, NvmeController, PciDevice
from carmel.hardware.nics import read_nics
from carmel.hardware.nvme import read_nvme
from carmel.hardware.pci import read_pci
from carmel.hardware.sysroot import Sysroot, parse_number
from carmel.network.names import is_function_tap

_TABLES = 1 << 20
"""Bytes of a table of routes or addresses that are looked at: some ten thousand lines."""
_GLOBAL = "00"
"""Scope of an IPv6 address as if_inet6 has it (include/net/ipv6.h): link-local ones every interface has."""


@dataclass(frozen=True, slots=True)
class HostSide:
    """``used`` says of an interface or drive, by the kernel's name, what the host has it for."""

    pci: Mapping[str, PciDevice] = field(default_factory=dict)
    nics: tuple[Nic, ...] = ()
    drives: tuple[NvmeController, ...] = ()
    used: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_iommu(self) -> bool:
        return any(device.iommu_group is not None for device in self.pci.values())


ReadHost = Callable[[], HostSide]


def read_host_side(root: Path = Path("/")) -> HostSide:
    """Blocking: a dozen small files for each PCI function."""
    files = Sysroot(root)
    nodes = files.numbers("sys/devices/system/node/online") or (0,)
    pci = {device.address: device for device in read_pci(files, frozenset(nodes))}
    nics = read_nics(files, pci)
    drives = read_nvme(files, {address: device.node for address, device in pci.items()})
    used = {**_used_interfaces(files, [nic.name for nic in nics]), **_used_drives(drives)}
    return HostSide(pci, nics, drives, used)


def _used_interfaces(files: Sysroot, names: Iterable[str]) -> dict[str, str]:
    routed, addressed = _routed(files), _addressed(files)
    found = {}
    for name in names:
        folder = f"sys/class/net/{name}"
        master = files.link(f"{folder}/master")
        uppers = [one.removeprefix("upper_") for one in files.names(folder) if one.startswith("upper_")]
        above = [one for one in uppers if not _is_function_tap(files, one)]
        if master is not None:
            found[name] = f"a port of {master}"
        elif above:
            found[name] = f"what {above[0]} is on"
        elif name in routed or name in addressed:
            found[name] = "an interface with addresses"
    return found


def _is_function_tap(files: Sysroot, name: str) -> bool:
    """By which a VM has the function: that is no use of the host's own."""
    return is_function_tap(name, parse_number(files.text(f"sys/class/net/{name}/netdev_group") or "") or 0)


def _routed(files: Sysroot) -> set[str]:
    """Interfaces with IPv4 addresses: each brings the route of its subnet."""
    lines = (files.text("proc/net/route", _TABLES) or "").splitlines()
    return {line.split()[0] for line in lines[1:] if line.split()}


def _addressed(files: Sysroot) -> set[str]:
    """Interfaces with IPv6 addresses of more than the link."""
    lines = (line.split() for line in (files.text("proc/net/if_inet6", _TABLES) or "").splitlines())
    return {words[5] for words in lines if len(words) >= 6 and words[3] == _GLOBAL}


def _used_drives(drives: Iterable[NvmeController]) -> dict[str, str]:
    return {
        drive.name: f"a drive that is in use ({namespace.name}: {namespace.used_by})"
        for drive in drives
        for namespace in drive.namespaces
        if namespace.used_by is not None
    }
