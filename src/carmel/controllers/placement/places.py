"""What the controller of VirtualMachines has to do with placement: a place for each VM that runs, and none else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.placement.mover import Mover
from carmel.controllers.placement.requests import restore_request, start_request
from carmel.hypervisor.machine import Hypervisor, Machine
from carmel.placement.model import Placement, Refusal, Request
from carmel.placement.requests import request_of
from carmel.resources.virtualmachine import VirtualMachine, VirtualMachineSpec


class Suspended(NamedTuple):
    """What a suspended VM was launched with. ``placement`` ``None``: before there was placement."""

    spec: VirtualMachineSpec
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class PlaceView:
    """The VM's place on this host.

    ``placement``: where it runs, or is to start. Of a VM that does not run: ``request`` is what a start asks for,
    ``refusal`` why it has no place, and ``impossible`` the same, seen without asking. ``astray``: it runs and is not
    held, or not surely, where it should be. ``host_page_bytes``: the size of the host's ordinary pages.
    """

    placement: Placement | None = None
    request: Request | None = None
    refusal: Refusal | None = None
    impossible: Refusal | None = None
    astray: bool = False
    host_page_bytes: int = 4096


def nowhere(_vm: VirtualMachine) -> frozenset[int]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Places:
    """The ledger, and who brings VMs to where it has them. ``near``: host nodes of what a VM uses without naming it."""

    ledger: Ledger
    mover: Mover
    hypervisor: Hypervisor
    near: Callable[[VirtualMachine], frozenset[int]] = nowhere

    async def restore(self, request: Request) -> None:
        """A VM that an earlier daemon left running has the place that it was launched at, or moved to. ``request`` is
        for one of which that was not kept."""
        machine = self.hypervisor.machine(request.uid)
        if machine is not None:
            recorded = await self.mover.restore(machine)
            placement = recorded.placement if recorded is not None else None
            self.ledger.adopt(placement.request if placement is not None else request, placement)

    def view(self, vm: VirtualMachine, machine: Machine | None, suspended: Suspended | None) -> PlaceView:
        hardware = self.ledger.ground.hardware
        if machine is not None:
            placement = self.ledger.placement(machine.launch.uid)
            astray = self.mover.wanted(machine) is not None
            return PlaceView(placement, astray=astray, host_page_bytes=hardware.page_bytes)
        impossible = None
        if suspended is not None:
            request = restore_request(vm, suspended.spec, suspended.placement, hardware)
        else:
            request, impossible = start_request(vm, hardware)
        request = replace(request, near=request.near | self.near(vm))
        return PlaceView(
            self.ledger.held(request), request, self.ledger.refusal(request), impossible, False, hardware.page_bytes
        )

    def follow(self, vm: VirtualMachine, machine: Machine) -> None:
        """Whether a running VM may be moved is as its spec says now, not as it said at the start."""
        movable = request_of(vm, frozenset()).movable and self.mover.can_move(machine)
        self.ledger.set_movable(machine.launch.uid, movable=movable)

    def reserve(self, request: Request, impossible: Refusal | None) -> None:
        if impossible is not None:
            self.ledger.refuse(request, impossible)
        else:
            self.ledger.reserve(request)

    def ended(self, uid: str) -> None:
        """The VM's QEMU is gone. Until ``leave`` its room is kept: a VM that starts anew at once must not lose it to
        another, though it may get a better place."""
        if self.hypervisor.machine(uid) is None:
            self.ledger.let_go(uid)
            self.mover.forget(uid)

    def leave(self, uid: str) -> None:
        """The VM neither runs nor is about to."""
        self.ledger.release(uid)
