"""Pure: what the status of a Port that this host switches says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from carmel.controllers.runtime import condition, error_message, find_condition, set_conditions
from carmel.errors import CarmelError
from carmel.network.dataplane import PortCount, PortPlan
from carmel.resources.base import Condition
from carmel.resources.port import DataPlane, Port, PortCounters


@dataclass(frozen=True, slots=True)
class Readings:
    """What a port was last found to have counted, and to use."""

    count: PortCount
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """``refusal``: why it cannot be plugged in as it is wanted. ``error``: why it is not as it is wanted now, that
    among it. ``readings`` ``None``: there are none yet."""

    plan: PortPlan
    attached: bool
    refusal: CarmelError | None
    error: CarmelError | None
    readings: Readings | None


def takes_precedence(one: Port, other: Port) -> bool:
    """Of two Ports that want the same: who has it keeps it, else who is plugged in has it, else who was there first."""
    return _rank(one) < _rank(other)


def _rank(port: Port) -> tuple[bool, bool, datetime, str]:
    created = port.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC)
    accepted = find_condition(port.status, "Accepted")
    has_it = (
        accepted is not None and accepted.status == "True" and accepted.observed_generation == port.metadata.generation
    )
    return not has_it, port.status.interface is None, created, port.metadata.uid or ""


def describe(port: Port, seen: Seen, now: datetime) -> None:
    """Write ``seen`` into the Port's status."""
    status = port.status
    status.observed_generation = port.metadata.generation
    status.data_plane = DataPlane.HOST
    status.smart_nic = status.function = status.mac = None
    status.interface = seen.plan.interface if seen.attached else None
    status.addresses = _addresses(seen)
    if not seen.attached:
        status.counters = status.counted_at = None
    elif seen.readings is not None and _counters(seen.readings) != status.counters:
        status.counters, status.counted_at = _counters(seen.readings), now.replace(microsecond=0)
    set_conditions(status, _conditions(port, seen), now)


def _addresses(seen: Seen) -> list[str] | None:
    if not seen.attached:
        return None
    if seen.readings is not None and seen.readings.addresses:
        return list(seen.readings.addresses)
    return [str(one) for one in seen.plan.addresses] or None


def _counters(readings: Readings) -> PortCounters:
    count = readings.count
    return PortCounters(
        received_packets=count.received_packets,
        received_bytes=count.received_bytes,
        sent_packets=count.sent_packets,
        sent_bytes=count.sent_bytes,
        dropped_packets=count.dropped_packets,
    )


def _conditions(port: Port, seen: Seen) -> Iterator[Condition]:
    generation = port.metadata.generation
    if seen.refusal is not None:
        yield _false("Accepted", seen.refusal, generation)
    else:
        yield condition("Accepted", "True", "Accepted", generation=generation)
    if seen.error is not None:
        yield _false("Ready", seen.error, generation)
    elif seen.attached:
        yield condition("Ready", "True", "Attached", generation=generation)
    else:
        yield condition("Ready", "False", "NotAttached", "its VM does not run", generation=generation)


def _false(type_: str, error: CarmelError, generation: int | None) -> Condition:
    return condition(type_, "False", error.code, error_message(error), generation=generation)
