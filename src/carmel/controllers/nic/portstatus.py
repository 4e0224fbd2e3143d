"""What the status of a Port on a SmartNIC says. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from carmel.controllers.nic.wishes import REMOTE, Refusal
from carmel.controllers.runtime import condition, remove_condition, set_conditions
from carmel.network.dataplane import PortCount, PortPlan
from carmel.resources.base import Condition
from carmel.resources.port import DataPlane, Port, PortCounters

_MAC = "MacAsWished"


@dataclass(frozen=True, slots=True)
class Plugged:
    """A port with its function in it. ``smart_nic`` is the NIC's name."""

    smart_nic: str
    function: str
    plan: PortPlan


def show_counts(port: Port, interface: str, count: PortCount, addresses: list[str], now: datetime) -> None:
    """Write them into the port's status if they are news, and of the interface that it has."""
    status = port.status
    if status.interface != interface:
        return
    status.addresses = addresses or None
    shown = PortCounters(**asdict(count))
    if shown != status.counters:
        status.counters = shown
        status.counted_at = now.replace(microsecond=0)


def describe_plugged(port: Port, plugged: Plugged, now: datetime) -> None:
    status, generation = port.status, port.metadata.generation
    status.observed_generation = generation
    status.data_plane = DataPlane.SMART_NIC
    status.smart_nic = plugged.smart_nic
    status.function = plugged.function
    status.interface = plugged.plan.interface
    status.mac = plugged.plan.mac if plugged.plan.mac != port.spec.mac else None
    if status.addresses is None:
        status.addresses = sorted(map(str, plugged.plan.addresses)) or None
    set_conditions(status, _plugged(port, plugged, generation), now)
    if status.mac is None:
        remove_condition(status, _MAC)


def _plugged(port: Port, plugged: Plugged, generation: int | None) -> Iterator[Condition]:
    yield condition("Ready", "True", "Plugged", generation=generation)
    if plugged.plan.mac != port.spec.mac:
        message = (
            f"the function {plugged.function} has the MAC address {plugged.plan.mac}, and this SmartNIC cannot give it "
            f"{port.spec.mac}: the source guard lets out what it has"
        )
        yield condition(_MAC, "False", "MacNotSettable", message, generation=generation)


def describe_unplugged(port: Port, smart_nic: str, refusal: Refusal, now: datetime, *, as_before: bool) -> None:
    """``as_before``: what it was changed to is refused, and what it was goes on."""
    status, generation = port.status, port.metadata.generation
    status.observed_generation = generation
    status.data_plane = DataPlane.SMART_NIC
    status.smart_nic = smart_nic
    if not as_before:
        status.function = status.interface = status.mac = status.addresses = None
        status.counters = status.counted_at = None
        remove_condition(status, _MAC)
    set_conditions(status, [condition("Ready", "False", refusal.reason, refusal.message, generation=generation)], now)


def describe_remote(port: Port, now: datetime) -> None:
    """Whether it is plugged in is for whoever switches it to say."""
    status, generation = port.status, port.metadata.generation
    status.observed_generation = generation
    status.data_plane = status.smart_nic = status.function = status.interface = status.mac = None
    status.counters = status.counted_at = None
    status.addresses = port.spec.addresses
    remove_condition(status, _MAC)
    set_conditions(status, [condition("Ready", "Unknown", REMOTE.reason, REMOTE.message, generation=generation)], now)
