"""Where VMs would go, decided as a host decides it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from carmel.cli.plan_ground import Ground
from carmel.errors import Refused
from carmel.hardware.model import Hardware
from carmel.placement.model import Placement, Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.placer import place
from carmel.placement.requests import nodes_near, request_of
from carmel.placement.silicon import survey
from carmel.resources.virtualmachine import VirtualMachine


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one VM. ``again``: it is on the host already, and was planned for as if it were started anew."""

    request: Request
    outcome: Placement | Refusal
    again: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """``answers`` in the order of the question; ``all`` are the placements in the end, of those that were there too:
    shared VMs keep off the CPUs that others have had dedicated after them."""

    answers: tuple[Answer, ...]
    all: tuple[Placement, ...]

    @property
    def refused(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if isinstance(answer.outcome, Refusal))


def plan_for(ground: Ground, vms: Sequence[VirtualMachine]) -> Plan:
    """One after the other, none moved to make room for the next."""
    silicon = survey(ground.hardware, ground.rules)
    wanted = [(vm.metadata.namespace or "", vm.metadata.name) for vm in vms]
    present = [placement for key, placement in ground.placed.items() if key not in wanted]
    occupancy = Occupancy.of(silicon, present)
    answers = []
    for number, (vm, key) in enumerate(zip(vms, wanted, strict=True)):
        # What is not made yet has no uid.
        request = replace(_request(vm, ground.hardware), uid=f"planned-{number}", name=_name(vm))
        outcome = _refused_device(vm, ground.hardware) or place(silicon, occupancy, request)
        answers.append(Answer(request, outcome, again=key in ground.placed))
        if isinstance(outcome, Placement):
            occupancy = occupancy.plus(outcome)
    planned = [answer.outcome for answer in answers if isinstance(answer.outcome, Placement)]
    final = {one.request.uid: occupancy.current(one.request.uid) for one in (*present, *planned)}
    return Plan(tuple(_now(answer, final) for answer in answers), tuple(final.values()))


def _name(vm: VirtualMachine) -> str:
    """``default/worker-*`` where the server is to make the name up."""
    return f"{vm.metadata.namespace}/{vm.metadata.name or f'{vm.metadata.generate_name}*'}"


def _request(vm: VirtualMachine, hardware: Hardware) -> Request:
    try:
        return request_of(vm, nodes_near(vm, hardware))
    except Refused:
        return request_of(vm, frozenset())


def _refused_device(vm: VirtualMachine, hardware: Hardware) -> Refusal | None:
    try:
        nodes_near(vm, hardware)
    except Refused as error:
        return Refusal(error.code, f"{error.field}: {error.message}", error.hint or "", permanent=True)
    return None


def _now(answer: Answer, final: dict[str, Placement]) -> Answer:
    """Where it may run when all are there; why it was put there was said when it was."""
    if isinstance(answer.outcome, Refusal):
        return answer
    current = final[answer.request.uid]
    return replace(
        answer,
        outcome=replace(current, reasons=answer.outcome.reasons, next_best=answer.outcome.next_best),
    )
