"""Pure: which function a VM's NIC gets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from carmel.controllers.runtime import find_condition
from carmel.errors import CarmelError, Refused, Unavailable
from carmel.resources.network import Network
from carmel.resources.smartnic import FunctionKind, FunctionState, FunctionStatus, SmartNIC
from carmel.smartnic.models.emulated import BOARD as EMULATED

UNUSABLE = frozenset({FunctionState.MISSING, FunctionState.REFUSED})
_FAR = 255
"""More than any distance between two NUMA nodes (ACPI 6.5, 5.2.17: 255 is out of reach)."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of one SmartNIC."""

    smart_nic: str
    id: str


@dataclass(frozen=True, slots=True)
class Wish:
    """``mac``: the spec's own; real NICs give it to a function, the emulated one cannot. ``before``: SmartNIC and MAC
    address at the last start, which are best again. ``distances`` go from the VM's memory to the host's NUMA nodes.
    ``field``: what to blame."""

    network: Network
    mac: str | None = None
    before: tuple[str | None, str | None] = (None, None)
    distances: Mapping[int, int] = field(default_factory=dict)
    field: str = "spec.networks"


def candidates(network: Network, smart_nics: Sequence[SmartNIC]) -> list[SmartNIC]:
    """The SmartNICs that may switch this network."""
    wanted = network.spec.smart_nic_ref
    return [one for one in smart_nics if wanted is None or one.metadata.name == wanted.name]


def choose(
    wish: Wish, smart_nics: Sequence[SmartNIC], taken: Collection[Function], kept: Collection[tuple[str, str]]
) -> tuple[Function, FunctionStatus]:
    """``kept``: SmartNIC and MAC address of functions that other VMs, which do not run, had at their last start: they
    are taken last.

    Raises ``Unavailable`` (``WaitingForSmartNIC``, ``NoFreeFunction``), ``Refused`` (``MACNotPossible``).
    """
    among = candidates(wish.network, smart_nics)
    ready = [one for one in among if is_ready(one)]
    if not ready:
        raise _none_ready(wish.network, among)
    free = [
        (Function(one.metadata.name, function.id), function)
        for one in ready
        for function in one.status.functions or ()
        if function.kind is FunctionKind.NET
        and function.state not in UNUSABLE
        and Function(one.metadata.name, function.id) not in taken
    ]
    if wish.mac is not None:
        mac = wish.mac.lower()
        fixed = {one.metadata.name for one in ready if one.status.model == EMULATED}
        same = [one for one in free if (one[1].mac or "").lower() == mac]
        free = same or [one for one in free if one[0].smart_nic not in fixed]
        if not free and fixed:
            raise _no_such_mac(wish, ready)
    if not free:
        raise _none_free(ready)
    return min(free, key=lambda one: _preference(wish, one[0], one[1], kept))


def is_ready(smart_nic: SmartNIC) -> bool:
    ready = find_condition(smart_nic.status, "Ready")
    return ready is not None and ready.status == "True" and smart_nic.metadata.deletion_timestamp is None


def _preference(
    wish: Wish, function: Function, status: FunctionStatus, kept: Collection[tuple[str, str]]
) -> tuple[bool, bool, int, str, tuple[tuple[int, str], ...]]:
    """The smallest is the best. A VM keeps its MAC address over its starts, where that can be."""
    here = (function.smart_nic, status.mac)
    node = status.numa_node
    distance = 0 if node is None or not wish.distances else wish.distances.get(node, _FAR)
    return here != wish.before, here in kept, distance, function.smart_nic, natural(function.id)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """``pf0vf2`` before ``pf0vf10``."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part)


def _none_ready(network: Network, among: Sequence[SmartNIC]) -> CarmelError:
    wanted = network.spec.smart_nic_ref
    if not among:
        named = f"there is no SmartNIC {wanted.name}" if wanted is not None else "this host has no SmartNIC"
        return Unavailable(
            f"network {network.metadata.name} is switched by a SmartNIC, and {named}",
            code="WaitingForSmartNIC",
            hint="docs/smartnic.md says how a NIC is joined; a VM's NIC with dataPlane Host needs none",
        )
    first = among[0]
    ready = find_condition(first.status, "Ready")
    said = ready.message.rstrip(".") if ready is not None and ready.message else "its state is not known yet"
    return Unavailable(f"SmartNIC {first.metadata.name} is not ready: {said}", code="WaitingForSmartNIC")


def _none_free(ready: Sequence[SmartNIC]) -> CarmelError:
    functions = [one for nic in ready for one in nic.status.functions or () if one.kind is FunctionKind.NET]
    names = ", ".join(one.metadata.name for one in ready)
    unusable = [one for one in functions if one.state in UNUSABLE]
    if functions and len(unusable) == len(functions):
        return Refused(
            f"no function of SmartNIC {names} can be passed on: {unusable[0].id}: {unusable[0].message}",
            code="NoUsableFunction",
        )
    used = f"all {len(functions)} functions are in use" if functions else "it shows none"
    return Unavailable(
        f"SmartNIC {names} has no free function: {used}",
        code="NoFreeFunction",
        hint="stop a VM that has one, have the NIC show more, or set dataPlane Host for this NIC",
    )


def _no_such_mac(wish: Wish, ready: Sequence[SmartNIC]) -> CarmelError:
    mac = (wish.mac or "").lower()
    if any((one.mac or "").lower() == mac for nic in ready for one in nic.status.functions or ()):
        return Unavailable(
            f"the function with MAC address {mac} is in use, or cannot be passed on", code="NoFreeFunction"
        )
    return Refused(
        f"a function has a MAC address of its own, and none has {mac}",
        code="MACNotPossible",
        hint="leave the NIC's mac out, or give it that of a function (`carmel smartnic show` lists them)",
        field=f"{wish.field}.mac",
    )
