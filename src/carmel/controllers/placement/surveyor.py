"""Keeps true what VMs stand on: reads the machine, takes the Host's rules, tells the ledger when either changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from carmel.controllers.placement.ground import Ground, Means, check, make_ground
from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.runtime import Clock, condition, error_message
from carmel.cpulist import format_cpu_list
from carmel.errors import CarmelError, InternalError
from carmel.hardware.model import Hardware
from carmel.hardware.status import hardware_status
from carmel.resources.base import Condition
from carmel.resources.host import HostPlacementSpec, HostPlacementStatus
from carmel.resources.host_hardware import HardwareStatus

_log = logging.getLogger(__name__)

LOOK_SECONDS = 300.0
"""How often the machine is read again: huge pages may have been reserved, a NIC got its link."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How the machine is looked at; both block, and run in a thread. ``plain`` counts until it was read."""

    read: Callable[[], Hardware]
    means: Callable[[], Means]
    plain: Hardware


@dataclass(slots=True)
class Surveyor:
    """``look`` before anything is placed."""

    machine: Machine
    clock: Clock
    _hardware: Hardware = field(init=False)
    _means: Means = field(default_factory=Means)
    _fault: CarmelError | None = None
    _read_at: float | None = None
    _status: HardwareStatus | None = None
    _ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self._hardware = self.machine.plain
        self._ledger = Ledger(make_ground(self._hardware, HostPlacementSpec(), self._means, None))

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    async def look(self, spec: HostPlacementSpec, max_vcpus: int | None, *, again: bool = False) -> None:
        """Read the machine if that was ``LOOK_SECONDS`` ago, or ``again``; let ``spec`` count, and the most vCPUs that
        QEMU takes. What runs keeps its place. Raises nothing: what is wrong stands in ``conditions``."""
        now = self.clock.monotonic()
        if again or self._read_at is None or now - self._read_at >= LOOK_SECONDS:
            self._read_at = now
            await self._read()
        ground = make_ground(self._hardware, spec, self._means, max_vcpus)
        if _lasting(ground) != _lasting(self._ledger.ground):
            self._ledger.set_ground(ground)

    async def _read(self) -> None:
        """A machine that cannot be read now is the one that was read last."""
        try:
            self._hardware, self._means, self._status = await asyncio.to_thread(self._read_now)
        except CarmelError as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - a kernel that says what nobody expected must not end the host
            _log.exception("the machine cannot be read")
            fault = InternalError(f"the machine cannot be read: {type(error).__name__}: {error}")
        else:
            self._fault = None
            return
        if self._fault is None or self._fault.message != fault.message:
            _log.warning("the machine cannot be read: %s", fault)
        self._fault = fault

    def _read_now(self) -> tuple[Hardware, Means, HardwareStatus]:
        hardware, means = self.machine.read(), self.machine.means()
        check(hardware)
        # It is tried here what is done with it later, so that no nonsense gets further.
        make_ground(hardware, HostPlacementSpec(), means, None)
        return hardware, means, hardware_status(hardware)

    # -- for the Host -------------------------------------------------------------------------------------------
    @property
    def hardware(self) -> HardwareStatus | None:
        """``None``: it could never be read."""
        return self._status

    def placement(self) -> HostPlacementStatus:
        ground = self._ledger.ground
        reserved = ground.rules.reserved_cpus
        online = {cpu.id for cpu in ground.hardware.cpus}
        return HostPlacementStatus(
            reserved_cpus=format_cpu_list(reserved),
            reserved_memory_bytes=sum(ground.rules.reserved_memory.values()),
            free_cpus=format_cpu_list(online - reserved - self._ledger.dedicated_cpus()),
            no_dedicated=ground.rules.no_dedicated,
        )

    def conditions(self) -> list[Condition]:
        return [self._hardware_condition(), self._rules_condition()]

    def _hardware_condition(self) -> Condition:
        if self._fault is not None:
            known = "what was read before counts" if self._status is not None else "VMs run, but anywhere"
            said = f"{error_message(self._fault).rstrip('.')}; {known}"
            return condition("HardwareKnown", "False", self._fault.code, said)
        lost = self._ledger.astray()
        if lost:
            return condition("HardwareKnown", "False", "HardwareGone", "; ".join(lost[:8]))
        return condition("HardwareKnown", "True", "Read")

    def _rules_condition(self) -> Condition:
        problems = self._ledger.ground.problems
        if problems:
            return condition("PlacementRulesValid", "False", "RulesContradictHardware", "; ".join(problems))
        return condition("PlacementRulesValid", "True", "Valid")


def _lasting(ground: Ground) -> Ground:
    """Without what changes all the time and decides nothing: how much memory is free just now."""
    hardware = ground.hardware
    nodes = tuple(
        replace(node, free_memory_bytes=None, huge_pages=tuple(replace(pool, free=0) for pool in node.huge_pages))
        for node in hardware.nodes
    )
    pools = tuple(replace(pool, free=0) for pool in hardware.huge_pages)
    return replace(ground, hardware=replace(hardware, nodes=nodes, huge_pages=pools))
