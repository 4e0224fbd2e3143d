"""What is planned and told of a VM's place: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from carmel.controllers.placement import PlaceView
from carmel.controllers.runtime import find_condition
from carmel.controllers.virtualmachine.observed import DiskView, Observed
from carmel.controllers.virtualmachine.planning import make_plan
from carmel.controllers.virtualmachine.status import write_status
from carmel.controllers.virtualmachine.steps import Launch, Repin, Reserve
from carmel.hypervisor.machine import MachineState
from carmel.placement.model import GuestNode, GuestTopology, Placement, Refusal, Request
from carmel.resources.virtualmachine import CpuPolicy, Disk, VirtualMachine
from tests.unit.controllers.virtualmachine.seen import running, seen, vm

REQUEST = Request(uid="u-1", name="default/w", vcpus=2, memory_bytes=2**30)
PLACEMENT = Placement(
    request=REQUEST,
    vcpus=((4,), (5,)),
    nodes=(GuestNode(0, (0, 1), 2**30, 1, (10,)),),
    topology=GuestTopology(1, 1, 2, 1),
    emulator_cpus=(6, 7),
    reasons=("It fits.",),
    next_best="Node 0 is worse.",
)
FULL = Refusal("InsufficientCPUs", "2 CPUs are missing", "wait until other VMs end")
NEVER = Refusal("TooManyCPUs", "no such machine", "ask for less", permanent=True)


def written(observed: Observed) -> VirtualMachine:
    one = observed.vm.model_copy(deep=True)
    write_status(one, observed, make_plan(observed).ready)
    return one


def told(one: VirtualMachine, type_: str) -> tuple[str, str, str]:
    found = find_condition(one.status, type_)
    assert found is not None
    return found.status, found.reason, found.message


def test_a_place_comes_before_the_start() -> None:
    plan = make_plan(seen(place=PlaceView(request=REQUEST)))
    assert (plan.steps, plan.wants_place) == ((Reserve(REQUEST),), True)
    plan = make_plan(seen(place=PlaceView(request=REQUEST, impossible=NEVER)))
    assert plan.steps == (Reserve(REQUEST, NEVER),)
    plan = make_plan(seen(place=PlaceView(PLACEMENT, REQUEST)))
    assert [type(step) for step in plan.steps] == [Launch]
    assert plan.wants_place


def test_one_that_is_not_to_start_wants_none() -> None:
    for state in ("PoweredOff", "Suspended"):
        assert not make_plan(seen(vm(powerState=state), place=PlaceView(request=REQUEST))).wants_place
    waits = seen(vm(networks=[{"name": "n"}]), place=PlaceView(request=REQUEST))
    missing = replace(waits, missing_secrets=("Secret s",))
    plan = make_plan(missing)
    assert (plan.steps, plan.wants_place) == ((), False)


@pytest.mark.parametrize(("refusal", "accepted"), [(FULL, "True"), (NEVER, "False")])
def test_a_refusal_is_told_and_waited_out(refusal: Refusal, accepted: str) -> None:
    observed = seen(place=PlaceView(request=REQUEST, refusal=refusal))
    plan = make_plan(observed)
    assert (plan.steps, plan.look_again, plan.wants_place) == ((), None, True)
    one = written(observed)
    message = f"{refusal.message}. {refusal.hint[:1].upper()}{refusal.hint[1:]}."
    assert told(one, "Ready") == ("False", refusal.code, message)
    assert told(one, "Placed") == ("False", refusal.code, message)
    assert told(one, "Accepted")[0] == accepted


def test_nothing_is_made_for_a_vm_that_can_never_be() -> None:
    disk = DiskView(Disk(name="d", size="1Gi"), "w-d", None)
    assert make_plan(seen(disks=(disk,), place=PlaceView(request=REQUEST, refusal=NEVER))).steps == ()
    assert make_plan(seen(disks=(disk,), place=PlaceView(request=REQUEST))).steps != ()


def test_who_is_astray_is_brought_home_and_is_ready_meanwhile() -> None:
    astray = PlaceView(PLACEMENT, astray=True)
    for observed in (running(place=astray), running(vm(powerState="Paused"), MachineState.PAUSED, place=astray)):
        assert make_plan(observed).steps == (Repin(),)
    assert make_plan(running(place=astray)).ready.ok


def test_the_place_of_a_running_vm() -> None:
    one = written(running(place=PlaceView(PLACEMENT, host_page_bytes=65536)))
    assert told(one, "Placed") == ("True", "Placed", "on host host, NUMA node 1, CPUs 4-5")
    place = one.status.placement
    assert place is not None
    assert [(vcpu.id, vcpu.host_cpus) for vcpu in place.vcpus] == [(0, "4"), (1, "5")]
    assert (place.policy, place.memory_nodes, place.page_size_bytes) == (CpuPolicy.SHARED, [1], 65536)
    assert (place.emulator_cpus, place.guest_nodes) == ("6-7", None)
    assert (place.reasons, place.next_best) == (["It fits."], "Node 0 is worse.")
    off = written(seen(one, place=PlaceView(request=REQUEST)))
    assert off.status.placement is None
    assert told(off, "Placed") == ("True", "Placed", "on host host")
