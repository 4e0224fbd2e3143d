"""Where a VM is, as it is kept beside its launch record: written before QEMU is started, and around each move."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from carmel.hypervisor.config import Pinning
from carmel.placement.model import Placement


@dataclass(frozen=True, slots=True)
class Recorded:
    """``placement`` is where the VM is; ``moving`` where a move that was begun takes it.

    Both are written before a move begins and the new place alone when it is over. So a daemon that finds ``moving``
    knows that only the machine itself can say which of the two is true.
    """

    placement: Placement
    moving: Placement | None = None

    def settled(self, pinning: Pinning | None) -> Placement:
        """Which of the two it is, of a machine that is held by ``pinning``."""
        if self.moving is None or pinning is None:
            return self.placement
        return max(self.placement, self.moving, key=lambda one: _likeness(one, pinning))


class Records(Protocol):
    """Keeps what is recorded, durably. ``LaunchedSpecs`` is one."""

    async def recorded(self, uid: str) -> Recorded | None: ...

    async def record(self, uid: str, recorded: Recorded) -> None:
        """Raises ``CarmelError`` when it cannot be written; then what was recorded before counts."""
        ...


def to_json(recorded: Recorded) -> dict[str, Any]:
    dump = _adapter().dump_python
    moving = dump(recorded.moving, mode="json") if recorded.moving is not None else None
    return {"placement": dump(recorded.placement, mode="json"), "moving": moving}


def from_json(data: object) -> Recorded | None:
    """``None`` for what is no record: the VM then counts as one that nobody placed."""
    if not isinstance(data, dict):
        return None
    read = _adapter().validate_python
    try:
        moving = data.get("moving")
        return Recorded(read(data.get("placement")), read(moving) if moving is not None else None)
    except ValidationError:
        return None


@functools.cache
def _adapter() -> TypeAdapter[Placement]:
    """Made when it is first needed, on a thread that writes or reads: it takes a while."""
    return TypeAdapter(Placement)


def _likeness(placement: Placement, pinning: Pinning) -> tuple[bool, int]:
    """How well the two agree. The CPUs of a shared VM shrink and grow with its neighbours, its nodes do not."""
    same_nodes = placement.memory_nodes == tuple(sorted(pinning.memory_nodes))
    pairs = zip(placement.vcpus, pinning.vcpus, strict=False)
    return same_nodes, sum(len(set(ours) & set(held)) for ours, held in pairs)
