"""Pure: what the status of a network that this host switches says, and when it may say something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from carmel.controllers.runtime import condition, error_message, set_conditions
from carmel.errors import CarmelError
from carmel.network.dataplane import NetworkPlan, Takeover, TakeoverStage
from carmel.resources.base import Condition, format_time
from carmel.resources.network import Network, TakeoverPhase, TakeoverStatus

MEND_SECONDS = 300.0
"""What somebody removed from the kernel is put back after this time."""
REFUSED_SECONDS = 30.0
"""What stands against a network may lie outside of the store: an address, an interface, a program."""
_PHASES = {
    TakeoverStage.WAITING: TakeoverPhase.WAITING,
    TakeoverStage.CONFIRMED: TakeoverPhase.CONFIRMED,
    TakeoverStage.ROLLED_BACK: TakeoverPhase.ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """``error`` is why the network cannot be as it is wanted; ``None``: it is, by ``backend``."""

    plan: NetworkPlan
    takeover: Takeover | None
    error: CarmelError | None
    ports: int
    backend: str | None = None

    @property
    def waiting(self) -> bool:
        return self.takeover is not None and self.takeover.stage is TakeoverStage.WAITING


def describe(network: Network, seen: Seen, interface: str, now: datetime) -> None:
    """Write ``seen`` into the network's status. ``interface``: the bridge that it has, or would have."""
    status = network.status
    status.observed_generation = network.metadata.generation
    status.ports = seen.ports
    status.takeover = _takeover(seen.takeover)
    if seen.error is None:
        status.backend, status.interface = seen.backend, interface
    else:
        status.backend = status.interface = None
    set_conditions(status, _conditions(network, seen), now)


def looks_again(seen: Seen, now: datetime) -> float:
    """In how many seconds something may be different though nobody changed the network."""
    if seen.waiting and seen.takeover is not None:
        return max(1.0, (seen.takeover.deadline - now).total_seconds() + 1.0)
    return MEND_SECONDS if seen.error is None else REFUSED_SECONDS


def _takeover(taken: Takeover | None) -> TakeoverStatus | None:
    if taken is None:
        return None
    return TakeoverStatus(
        phase=_PHASES[taken.stage],
        started_at=taken.started_at.replace(microsecond=0),
        deadline=taken.deadline.replace(microsecond=0),
    )


def _conditions(network: Network, seen: Seen) -> Iterator[Condition]:
    generation = network.metadata.generation
    if seen.error is not None:
        message = error_message(seen.error)
        yield condition("Accepted", "False", seen.error.code, message, generation=generation)
        yield condition("Ready", "False", seen.error.code, message, generation=generation)
        return
    yield condition("Accepted", "True", "Supported", generation=generation)
    if seen.waiting and seen.takeover is not None and seen.plan.uplink is not None:
        message = (
            f"the addresses of {', '.join(seen.plan.uplink.members)} are the bridge's now, and go back at "
            f"{format_time(seen.takeover.deadline)} unless somebody says that this host can still be reached: "
            f"carmel network confirm {network.metadata.name}"
        )
        yield condition("Ready", "False", "WaitingForConfirmation", message, generation=generation)
        return
    yield condition("Ready", "True", "Available", generation=generation)
