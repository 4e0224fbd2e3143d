"""From a Port and what the NIC shows to what is to be plugged, or the sentence why nothing can be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from carmel.controllers.network.plans import port_plan
from carmel.controllers.runtime import Key, key_of
from carmel.network.dataplane import PortPlan
from carmel.resources.base import JsonObject
from carmel.resources.port import Port
from carmel.smartnic.models.model import Shown
from carmel.store.protocol import Stored

_Matches = Callable[[JsonObject], bool]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a port is not plugged. ``reason`` is one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Wish:
    """``plan`` has the MAC address by which the function is seen. ``function_mac``: the one to be given to it first."""

    function: str
    plan: PortPlan
    function_mac: str | None = None


NOT_PLUGGED = Refusal("NoFunction", "no function is plugged into it")
REMOTE = Refusal("Remote", "it is switched elsewhere: here it is a peer of policies, by its addresses")


def wish_of(
    port: Port, mirror: Port | None, rivals: Sequence[Stored], shown: Shown, *, sets_macs: bool
) -> Wish | Refusal:
    """``rivals``: ports for the same function, or the same NIC of the same owner, itself among them."""
    if port.spec.remote:
        return REMOTE
    name = port.spec.function
    if name is None:
        return NOT_PLUGGED
    function, representor = shown.function(name), shown.representor_of(name)
    if function is None or representor is None:
        return Refusal("NoSuchFunction", _no_function(name, shown))
    key = key_of(port)
    holder = first_of(rivals, lambda spec: spec.get("function") == name)
    if holder is not None and holder != key:
        return Refusal("FunctionInUse", f"the function {name} is plugged into the port {holder}")
    owner = (port.spec.owner, port.spec.nic)
    namesake = first_of(rivals, lambda spec: (spec["owner"], spec["nic"]) == owner)
    if namesake is not None and namesake != key:
        return Refusal("PortExists", f"the port {namesake} is for the same NIC ({port.spec.nic}) of the same owner")
    plan = port_plan(port, mirror=mirror, representor=representor.name)
    if function.mac is None or function.mac == plan.mac:
        return Wish(name, plan, plan.mac if sets_macs and function.mac is None else None)
    return Wish(name, plan, plan.mac) if sets_macs else Wish(name, replace(plan, mac=function.mac))


def first_of(ports: Iterable[Stored], matches: _Matches) -> Key | None:
    """Who has it: the port that has its function plugged in already, else the oldest. The same whoever asks, and after
    every start."""
    found = []
    for stored in ports:
        obj = stored.json()
        if matches(obj["spec"]) and _is_to_be_plugged(obj):
            found.append((*_age(obj), key_of(stored)))
    return min(found)[-1] if found else None


def _is_to_be_plugged(port: JsonObject) -> bool:
    spec = port["spec"]
    return bool(spec.get("function")) and not spec.get("remote") and not port["metadata"].get("deletionTimestamp")


def _age(port: JsonObject) -> tuple[bool, str, str]:
    metadata = port["metadata"]
    plugged = (port.get("status") or {}).get("function") == port["spec"]["function"]
    return not plugged, metadata.get("creationTimestamp") or "", metadata["uid"]


def _no_function(name: str, shown: Shown) -> str:
    if shown.problem is not None:
        return shown.problem
    names = ", ".join(one.id for one in shown.functions[:32])
    return f"this SmartNIC has no function {name} (now); it has {names}" if names else f"there is no function {name}"
