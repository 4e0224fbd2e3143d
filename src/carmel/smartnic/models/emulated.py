"""The SmartNIC of the lab: a VM whose virtio-net devices are joined by cables to those of another VM, its host.

There is no firmware to ask. MAC addresses say what each end of a cable is:

===================== ===========================================================================================
``52:54:00:ca:00:01`` the host's end of the internal link, ``52:54:00:ca:00:02`` the NIC's
``52:54:00:ca:01:NN`` function NN as the host sees it: id ``pf0vfNN``, in decimal
``52:54:00:ca:02:NN`` its representor on the NIC
``52:54:00:ca:03:NN`` an uplink of the NIC, ``pNN``
===================== ===========================================================================================

Of a real NIC it lacks an e-switch (each packet is switched by the Arm cores), and what firmware does: functions have
the MAC addresses that they were made with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from carmel.errors import Refused
from carmel.hardware.sysroot import Sysroot
from carmel.network.host.kernel import Link
from carmel.smartnic.models.model import Flavour, Function, Representor, Shown, own_name, sorted_by_name

BOARD = "emulated"
_CONVENTION = "52:54:00:ca:"
_LINK_OF_THE_NIC = f"{_CONVENTION}00:02"
_FUNCTION, _REPRESENTOR, _UPLINK = "01", "02", "03"


class EmulatedNic:
    """``root`` has its firmware's words: the serial number that its VM was given. One that was started without firmware
    has the identity of the machine instead (machine-id(5))."""

    board = BOARD
    sets_macs = False

    def __init__(self, root: Sysroot) -> None:
        told = root.word("sys/class/dmi/id/product_serial") or root.word("sys/class/dmi/id/product_uuid")
        self.serial = told or root.word("etc/machine-id")

    async def look(self, links: Mapping[str, Link]) -> Shown:
        return shown_by(links)

    async def set_mac(self, function: str, mac: str) -> None:
        raise Refused(
            f"the function {function} of an emulated NIC keeps its MAC address: {mac} cannot be given to it",
            code="MacNotSettable",
        )


def is_emulated(links: Mapping[str, Link]) -> bool:
    """By its end of the internal link."""
    return any(link.mac == _LINK_OF_THE_NIC for link in links.values())


def shown_by(links: Mapping[str, Link]) -> Shown:
    """Pure: what the convention says about the links."""
    representors = tuple(sorted(_representors(links), key=lambda one: (len(one.name), one.name)))
    functions = (
        Function(one.function, _mac(_FUNCTION, one.function), one.name)
        for one in representors
        if one.function is not None
    )
    return Shown(representors, sorted_by_name(functions))


def _representors(links: Mapping[str, Link]) -> Iterator[Representor]:
    for link in links.values():
        kind, number = _meaning(link)
        if kind == _REPRESENTOR:
            yield Representor(own_name(link), link.name, Flavour.PCI_VF, f"pf0vf{number}", link.up)
        elif kind == _UPLINK:
            yield Representor(own_name(link), link.name, Flavour.PHYSICAL, None, link.up)


def _meaning(link: Link) -> tuple[str, int]:
    """Bridges and bonds take over the MAC address of an interface in them, and mean nothing by it."""
    if not link.mac.startswith(_CONVENTION) or link.kind in {"bridge", "bond", "vlan", "ifb"}:
        return "", 0
    kind, number = link.mac.removeprefix(_CONVENTION).split(":")
    return kind, int(number, 16)


def _mac(kind: str, function: str) -> str:
    return f"{_CONVENTION}{kind}:{int(function.removeprefix('pf0vf')):02x}"
