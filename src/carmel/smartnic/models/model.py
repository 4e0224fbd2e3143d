"""What is known of a SmartNIC from within, whatever its make. Words are those of devlink (devlink-port(8))."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from carmel.network.host.kernel import Link
from carmel.resources.smartnic import SmartNICMode


class Flavour(StrEnum):
    """What an interface on the Arm cores stands for."""

    PHYSICAL = "physical"
    PCI_PF = "pci_pf"
    PCI_VF = "pci_vf"
    PCI_SF = "pci_sf"


@dataclass(frozen=True, slots=True)
class Representor:
    """``name``: what it is called while it is unplugged; ``interface``: what the kernel calls it now. ``function``: the
    id of the function that it stands for, none for an uplink."""

    name: str
    interface: str
    flavour: Flavour
    function: str | None = None
    up: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the host sees. ``mac``: its own, which the network sees. ``pci_address``: on the host, where the
    NIC can tell it."""

    id: str
    mac: str | None = None
    representor: str | None = None
    pci_address: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What the NIC has at one moment. ``problem``: why nothing can be switched, in a sentence."""

    representors: tuple[Representor, ...] = ()
    functions: tuple[Function, ...] = ()
    mode: SmartNICMode = SmartNICMode.DPU
    hardware_offload: bool = False
    problem: str | None = None

    def function(self, name: str) -> Function | None:
        return next((one for one in self.functions if one.id == name), None)

    def representor_of(self, function: str) -> Representor | None:
        return next((one for one in self.representors if one.function == function), None)


class SmartNicModel(Protocol):
    """One make. ``board``: its id in the catalogue of boards."""

    @property
    def board(self) -> str: ...

    @property
    def serial(self) -> str | None: ...

    @property
    def sets_macs(self) -> bool:
        """Whether functions can be given MAC addresses."""
        ...

    async def look(self, links: Mapping[str, Link]) -> Shown:
        """From the kernel's links. Raises ``CarmelError`` if the NIC cannot be asked."""
        ...

    async def set_mac(self, function: str, mac: str) -> None:
        """Give a function that is unplugged another MAC address. Raises ``Refused`` (``MacNotSettable``)."""
        ...


def own_name(link: Link) -> str:
    """What a link is called while it is not plugged into a port."""
    return link.name if link.lent is None else link.lent.name


def sorted_by_name(functions: Iterable[Function]) -> tuple[Function, ...]:
    """``pf0vf2`` before ``pf0vf10``."""
    return tuple(sorted(functions, key=lambda one: (len(one.id), one.id)))
