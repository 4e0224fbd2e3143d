"""Pure: what the host's own Networks and Ports say of what a SmartNIC does for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from carmel.client.objects import JsonObject, dig
from carmel.controllers.runtime import condition, find_condition, set_conditions
from carmel.controllers.runtime.conditions import Truth, error_message
from carmel.errors import CarmelError, NotFound
from carmel.resources.base import Condition, Time
from carmel.resources.network import Network
from carmel.resources.port import DataPlane, Port, PortCounters
from carmel.smartnic.link import NicView, no_port
from carmel.smartnic.peers import is_remote
from carmel.smartnic.reading import condition_of

_TIME: TypeAdapter[Any] = TypeAdapter(Time)


@dataclass(frozen=True, slots=True)
class Reflected:
    """``there``: the object on the NIC, ``None``: it has none. ``wrong``: why the NIC says nothing of it."""

    smart_nic: str | None
    there: JsonObject | None = None
    wrong: CarmelError | None = None


def reflect_network(network: Network, seen: Sequence[Reflected], ports: int, now: datetime) -> None:
    """Of the SmartNICs that may switch it, the best: one that does."""
    status, generation = network.status, network.metadata.generation
    best = min(seen, key=_rank, default=None)
    status.observed_generation = generation
    status.ports = ports
    status.interface = status.takeover = None
    status.backend = _text(dig(best.there, "status", "backend")) if best is not None and best.there else None
    accepted = condition("Accepted", "True", "Supported", generation=generation)
    set_conditions(status, [accepted, _network_ready(network, best)], now)


def _rank(seen: Reflected) -> int:
    if seen.wrong is not None:
        return 3
    if seen.there is None:
        return 2
    return 0 if condition_of(seen.there, "Ready").get("status") == "True" else 1


def _network_ready(network: Network, best: Reflected | None) -> Condition:
    name, generation = network.metadata.name, network.metadata.generation
    if best is None:
        wanted = network.spec.smart_nic_ref
        said = f"there is no SmartNIC {wanted.name}" if wanted is not None else "this host has no SmartNIC"
        return condition("Ready", "False", "WaitingForSmartNIC", said, generation=generation)
    if best.wrong is not None:
        return condition("Ready", "False", best.wrong.code, error_message(best.wrong), generation=generation)
    if best.there is None:
        missing = NotFound(
            f"SmartNIC {best.smart_nic} has no Network {name}",
            code="NoNetworkOnNIC",
            hint=f"its administrator makes it: carmel smartnic sync {best.smart_nic}",
        )
        return condition("Ready", "False", missing.code, error_message(missing), generation=generation)
    return _said(best, "Ready", generation)


def reflect_port(port: Port, seen: Reflected, now: datetime) -> None:
    """Which function it has is not written here: that is ``claims``' alone."""
    status, generation = port.status, port.metadata.generation
    status.observed_generation = generation
    if status.data_plane is DataPlane.HOST and status.interface is not None:
        # The host still has it plugged in: whether it could change over is all that there is to say.
        set_conditions(status, [_accepted(port, seen)], now)
        return
    status.data_plane = DataPlane.SMART_NIC
    plugged = seen.there is not None and dig(seen.there, "status", "function") is not None
    if plugged and status.function == dig(seen.there, "status", "function"):
        _plugged(port, seen.there or {})
    elif seen.wrong is None:
        status.interface = status.addresses = None
        status.counters = status.counted_at = None
    conditions = [_accepted(port, seen), _port_ready(port, seen)]
    set_conditions(status, conditions, now)


def _plugged(port: Port, there: JsonObject) -> None:
    status, told = port.status, there.get("status") or {}
    status.interface = _text(told.get("interface"))
    status.addresses = [str(one) for one in told.get("addresses") or ()] or None
    mac = _text(told.get("mac")) or _text(dig(there, "spec", "mac"))
    status.mac = mac.lower() if mac is not None else status.mac
    try:
        status.counters = PortCounters.model_validate(told["counters"]) if told.get("counters") else None
        status.counted_at = _TIME.validate_python(told["countedAt"]) if told.get("countedAt") else None
    except ValidationError:
        status.counters = status.counted_at = None


def _accepted(port: Port, seen: Reflected) -> Condition:
    """Whether a start need not wait for something of it. What runs has what it needs."""
    generation = port.metadata.generation
    wrong = seen.wrong
    if wrong is None and seen.there is None and seen.smart_nic is not None:
        wrong = no_port(seen.smart_nic, port.metadata.namespace or "", port.metadata.name)
    before = find_condition(port.status, "Accepted")
    away = seen.wrong is not None and before is not None and before.status == "True"
    if wrong is None or port.status.function is not None or away:
        return condition("Accepted", "True", "Accepted", generation=generation)
    return condition("Accepted", "False", wrong.code, error_message(wrong), generation=generation)


def _port_ready(port: Port, seen: Reflected) -> Condition:
    generation = port.metadata.generation
    if port.status.function is None:
        return condition("Ready", "False", "NotAttached", "its VM does not run", generation=generation)
    if seen.wrong is not None:
        return condition("Ready", "Unknown", seen.wrong.code, error_message(seen.wrong), generation=generation)
    if seen.there is None:
        missing = no_port(seen.smart_nic or "", port.metadata.namespace or "", port.metadata.name)
        return condition("Ready", "False", missing.code, error_message(missing), generation=generation)
    return _said(seen, "Ready", generation)


def _said(seen: Reflected, type_: str, generation: int | None) -> Condition:
    """The NIC's own condition, of this host's generation."""
    found: Mapping[str, Any] = condition_of(seen.there or {}, type_)
    status: Truth = "True" if found.get("status") == "True" else "False"
    reason = _text(found.get("reason")) or "NotTold"
    said = _text(found.get("message")) or ""
    return condition(type_, status, reason, f"SmartNIC {seen.smart_nic}: {said}" if said else "", generation=generation)


def of_view(smart_nic: str, view: NicView, plural: str, key: tuple[str, str], wrong: CarmelError | None) -> Reflected:
    """The object of that key on the NIC. ``wrong``: why the NIC is not to be believed."""
    error = view.error or wrong
    if error is not None:
        return Reflected(smart_nic, wrong=error)
    there = view.objects.get(plural, {}).get(key)
    # A Port that it has as a peer only is none of its own.
    return Reflected(smart_nic, None if there is not None and is_remote(there) else there)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
