from __future__ import annotations

from dataclasses import replace

from carmel.controllers.runtime import find_condition
from carmel.controllers.virtualmachine.observed import DiskView, GuestView, Launched
from carmel.controllers.virtualmachine.planning import make_plan
from carmel.controllers.virtualmachine.status import changed_fields, write_status
from carmel.hypervisor.machine import MachineState
from carmel.resources.virtualmachine import (
    GuestStatus,
    NetworkInterfaceStatus,
    PowerState,
    TerminationReason,
    VirtualMachine,
)
from tests.unit.controllers.virtualmachine.seen import end, machine, running, seen, vm


def written(observed: object) -> VirtualMachine:
    one = observed.vm.model_copy(deep=True)  # type: ignore[attr-defined]
    write_status(one, observed, make_plan(observed).ready)  # type: ignore[arg-type]
    return one  # type: ignore[no-any-return]


def truth(one: VirtualMachine, type_: str) -> tuple[str, str]:
    found = find_condition(one.status, type_)
    assert found is not None
    return found.status, found.reason


def test_running() -> None:
    one = written(running())
    assert (one.status.power_state, one.status.launch_id) == (PowerState.ON, "l-1")
    assert (one.status.bios_uuid, one.status.instance_uuid) == ("u-1", "u-1")
    assert truth(one, "Ready") == ("True", "Running")
    assert truth(one, "Placed") == ("True", "Placed")
    assert truth(one, "LiveMigratable") == ("True", "Migratable")
    assert truth(one, "GuestAgentConnected") == ("False", "NoAnswer")


def test_a_second_writing_changes_nothing() -> None:
    observed = running()
    once = written(observed)
    assert written(replace(observed, vm=once)).status == once.status


def test_blockers_are_quoted() -> None:
    blocked = replace(machine(), migration_blockers=("nvme cannot",))
    one = written(running(machine=blocked))
    assert truth(one, "LiveMigratable") == ("False", "NonMigratableDevice")
    found = find_condition(one.status, "LiveMigratable")
    assert found is not None
    assert "nvme cannot" in found.message


def test_addresses_from_the_agent_win_over_the_plan() -> None:
    nic = NetworkInterfaceStatus(name="n", mac="52:54:00:00:00:01", addresses=["10.0.2.15"])
    launched = Launched(vm().spec, "boot-1", (nic,))
    assert written(running(launched=launched)).status.addresses == ["10.0.2.15"]
    told = GuestView(GuestStatus(host_name="web"), ((nic.mac, ("10.0.2.99", "fe80::1")),))
    one = written(running(launched=launched, machine=replace(machine(), guest=told)))
    assert one.status.addresses == ["10.0.2.99", "fe80::1"]
    assert truth(one, "GuestAgentConnected") == ("True", "Connected")


def test_changes_that_wait_for_a_restart_are_named() -> None:
    observed = running(vm(memory={"size": "1Gi"}, disks=[{"name": "d", "size": "1Gi"}]))
    changed = vm(memory={"size": "2Gi"}, disks=[{"name": "d", "size": "1Gi", "deletePolicy": "Retain"}])
    changed.spec.bios_uuid = "8c1a6f3e-0000-4000-8000-000000000001"
    changed.spec.restart_policy = changed.spec.restart_policy.__class__.NEVER
    observed = replace(observed, vm=changed, disks=tuple(DiskView(one, "w-d", None) for one in changed.spec.disks))
    assert changed_fields(observed) == ["spec.memory", "spec.biosUUID"]
    one = written(observed)
    assert truth(one, "RestartRequired") == ("True", "SpecChanged")
    assert find_condition(written(replace(observed, vm=one, machine=None)).status, "RestartRequired") is None


def test_an_end_that_nobody_asked_for_keeps_its_launch_and_one_that_was_does_not() -> None:
    status = end(TerminationReason.GUEST_SHUTDOWN)
    assert written(seen(vm(status))).status.launch_id == "l-1"
    off = written(seen(vm(status, powerState="PoweredOff")))
    assert (off.status.launch_id, off.status.power_state) == (None, PowerState.OFF)
    assert off.status.last_termination is not None


def test_suspended() -> None:
    one = written(seen(vm({"launch_id": "l-1"}, powerState="Suspended"), saved=True))
    assert (one.status.power_state, one.status.launch_id) == (PowerState.SUSPENDED, None)
    assert truth(one, "Ready") == ("False", "Suspended")


def test_refused() -> None:
    one = written(seen(vm(cpu={"count": 99})))
    assert truth(one, "Accepted") == ("False", "TooManyCPUs")
    assert truth(one, "Ready") == ("False", "TooManyCPUs")


def test_paused() -> None:
    one = written(running(vm(powerState="Paused"), MachineState.PAUSED))
    assert one.status.power_state is PowerState.PAUSED
    assert truth(one, "Ready") == ("False", "Paused")
