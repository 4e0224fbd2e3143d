"""A SmartNIC's representors: ports are plugged by taking them, and they are given back, never removed. Pure.

While it is plugged in, a representor has the port's name, so that filters know it as any port; what it was called
before, and its MTU, stand in its alias. So whoever finds it knows what to give back, whatever happened to who took it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carmel.errors import Refused
from carmel.network.dataplane import PortPlan
from carmel.network.host.kernel import KernelState, Lent
from carmel.network.host.steps import GiveBack, Step, Take

_VIRTUAL = frozenset({"bridge", "bond", "tun", "ifb", "vlan", "dummy"})
"""What is no end of a function."""


def check_representor(port: PortPlan, kernel: KernelState) -> None:
    """Raises ``Refused`` for one that is not there, or that somebody uses."""
    assert port.representor is not None
    plugged = kernel.links.get(port.interface)
    if plugged is not None and plugged.lent is not None and plugged.lent.name == port.representor:
        return
    for other in kernel.links.values():
        if other.lent is not None and other.lent.name == port.representor:
            raise Refused(
                f"the representor {port.representor} is plugged into another port ({other.name})",
                code="RepresentorInUse",
                hint="unplug it there first, or take another function",
            )
    link = kernel.links.get(port.representor)
    if link is None:
        raise Refused(f"there is no interface {port.representor} here", code="NoSuchRepresentor")
    if link.ours or link.loopback or link.kind in _VIRTUAL:
        raise Refused(f"{link.name} is no representor of a function", code="NoSuchRepresentor")
    if link.master is not None or link.addresses:
        used = f"is a part of {link.master}" if link.master is not None else "has addresses of this machine"
        raise Refused(
            f"the representor {link.name} {used}",
            code="RepresentorInUse",
            hint="take it out of that, and it is plugged",
        )


def to_give_back(ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[GiveBack]:
    """Those that no port wants, or whose port wants another by now."""
    wanted = {port.interface: port.representor for port in ports}
    for link in kernel.links.values():
        lent = link.lent
        if lent is not None and wanted.get(link.name) != lent.name:
            yield GiveBack(link.name, lent.name, lent.mtu)


def to_take(ports: Sequence[PortPlan], kernel: KernelState) -> tuple[Step, ...]:
    """Those that are there and free. Others wait: a function may be plugged in later, or come back."""
    return tuple(_take(ports, kernel))


def _take(ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[Step]:
    for port in ports:
        link = kernel.links.get(port.representor or "")
        if link is None or port.interface in kernel.links:
            continue
        try:
            check_representor(port, kernel)
        except Refused:
            continue
        yield Take(link.name, port.interface, Lent(link.name, link.mtu).alias(port.owner, port.nic))
