"""Pure: what the status of a VM says, from what was seen and what is planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carmel.controllers.placement.words import placed_sentence, refusal_sentence
from carmel.controllers.runtime.conditions import Truth, condition, remove_condition, set_conditions
from carmel.controllers.virtualmachine.livedisks import live_disks
from carmel.controllers.virtualmachine.livenics import live_nics
from carmel.controllers.virtualmachine.observed import FINALIZER, MachineView, Observed
from carmel.controllers.virtualmachine.steps import Ready
from carmel.controllers.virtualmachine.waiting import refusals
from carmel.hypervisor.machine import MachineState
from carmel.placement.status import placement_status
from carmel.resources.base import Condition
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import (
    DiskStatus,
    NetworkInterfaceStatus,
    PowerState,
    VirtualMachine,
    VirtualMachineSpec,
    VirtualMachineStatus,
)

RESTART_REQUIRED = "RestartRequired"
_READ_AT_START = (
    "cpu",
    "memory",
    "numa",
    "firmware",
    "iommu",
    "cloud_init",
    "bios_uuid",
    "instance_uuid",
)
"""What of a spec QEMU is started with: a change counts from the next start on."""

NICS_PLUGGED, DISKS_PLUGGED = "NICsPlugged", "DisksPlugged"


def write_status(vm: VirtualMachine, observed: Observed, ready: Ready) -> None:
    """Edit ``vm.status``, which may be newer than ``observed.vm``'s, to say what is."""
    status, machine = vm.status, observed.live
    status.observed_generation = observed.vm.metadata.generation
    status.host_name = observed.host.name
    status.power_state = _power_state(observed)
    status.bios_uuid, status.instance_uuid = identities(observed.vm)
    status.disks = _disks(observed) or None
    if machine is not None:
        _write_running(status, observed, machine)
    else:
        _write_resting(status, observed)
    set_conditions(status, _conditions(observed, ready), observed.now)
    changed = changed_fields(observed)
    if changed:
        fields = ", ".join(changed)
        message = f"{fields} changed since the VM was started: restart it for that to count"
        set_conditions(status, [condition(RESTART_REQUIRED, "True", "SpecChanged", message)], observed.now)
    else:
        remove_condition(status, RESTART_REQUIRED)
    for type_, devices in ((NICS_PLUGGED, live_nics(observed)), (DISKS_PLUGGED, live_disks(observed))):
        waiting = devices.waiting()
        if waiting:
            message = "; ".join(f"{name}: {why}" for name, why in waiting)
            set_conditions(status, [condition(type_, "False", "Waiting", message)], observed.now)
        else:
            remove_condition(status, type_)


def identities(vm: VirtualMachine) -> tuple[str, str]:
    """BIOS and instance UUID: the spec's, or the VM's own uid, which is unique and stays."""
    own = vm.metadata.uid or ""
    return vm.spec.bios_uuid or own, vm.spec.instance_uuid or own


def changed_fields(observed: Observed) -> list[str]:
    """The fields of the spec that the running (or suspended) VM was not started with (``spec.cpu``)."""
    if observed.launched is None or (observed.live is None and not observed.saved):
        return []
    was, wanted = _comparable(observed.launched.spec), _comparable(observed.vm.spec)
    changed = [name for name in _READ_AT_START if was[name] != wanted[name]]
    aliases = {name: field.alias or name for name, field in VirtualMachineSpec.model_fields.items()}
    changed += ["disks"] if live_disks(observed).need_restart() else []
    changed += ["networks"] if live_nics(observed).need_restart() else []
    near = ["spec.placement.near"] if _near(observed.launched.spec) != _near(observed.vm.spec) else []
    return [*(f"spec.{aliases[name]}" for name in changed), *near]


def _near(spec: VirtualMachineSpec) -> set[str]:
    return set((spec.placement.near if spec.placement is not None else None) or [])


def _comparable(spec: VirtualMachineSpec) -> dict[str, Any]:
    return spec.model_dump(include=set(_READ_AT_START))


def _power_state(observed: Observed) -> PowerState:
    machine = observed.machine
    if machine is None or machine.state is MachineState.ENDED:
        return PowerState.SUSPENDED if observed.saved else PowerState.OFF
    return PowerState.PAUSED if machine.state is MachineState.PAUSED else PowerState.ON


def _disks(observed: Observed) -> list[DiskStatus]:
    attached = [
        DiskStatus(name=view.disk.name, volume_name=view.volume_name, capacity_bytes=view.volume.status.capacity_bytes)
        for view in observed.disks
        if view.volume is not None and view.volume.status.used_by == observed.vm.metadata.name
    ]
    names = {disk.volume_name for disk in attached}
    # Those that left the spec stay here until they are detached: this list is how that is remembered.
    still = [
        disk
        for disk in observed.vm.status.disks or []
        if disk.volume_name in observed.former_volumes and disk.volume_name not in names
    ]
    return [*attached, *still]


def _write_running(status: VirtualMachineStatus, observed: Observed, machine: MachineView) -> None:
    launch = machine.launch
    status.machine_type = launch.machine_type
    status.accelerator = launch.accelerator.value
    status.cpu_model = launch.cpu_model
    status.launch_id = launch.launch_id
    status.started_at = launch.started_at.replace(microsecond=0)
    launched = observed.launched
    if launched is not None and launched.spec.restart_requested_at is not None:
        status.restarted_at = launched.spec.restart_requested_at
    placement, page_bytes = observed.place.placement, observed.place.host_page_bytes
    status.placement = placement_status(placement, page_bytes) if placement is not None else None
    status.guest = machine.guest.guest
    told = dict(machine.guest.addresses)
    nics = launched.networks if launched is not None else ()
    learned = {view.nic.name: view.port.port.status.addresses for view in observed.nics if view.port and view.port.port}
    status.networks = [_with_addresses(nic, told, learned.get(nic.name)) for nic in nics] or None
    addresses = [address for one in status.networks or [] for address in one.addresses or []]
    others = [address for found in told.values() for address in found]
    status.addresses = list(dict.fromkeys([*addresses, *others])) or None


def _with_addresses(
    nic: NetworkInterfaceStatus, told: dict[str, tuple[str, ...]], learned: list[str] | None
) -> NetworkInterfaceStatus:
    """With the addresses that the guest told, else those that its port learned, else those that its network gives."""
    addresses = list(told.get(nic.mac, ())) or learned or nic.addresses
    return nic.model_copy(update={"addresses": addresses})


def _write_resting(status: VirtualMachineStatus, observed: Observed) -> None:
    status.machine_type = status.accelerator = status.cpu_model = status.guest = None
    status.started_at = status.addresses = status.networks = status.placement = None
    wanted = observed.vm.spec.power_state
    if observed.machine is None and (observed.saved or wanted in {PowerState.OFF, PowerState.SUSPENDED}):
        # The end was asked for: the next wish to run is a new one (see restarts.ended_run).
        status.launch_id = None
        status.restart_count = None


def _conditions(observed: Observed, ready: Ready) -> Iterator[Condition]:
    generation = observed.vm.metadata.generation
    truth: Truth = "True" if ready.ok else "False"
    yield condition("Ready", truth, ready.reason, ready.message, generation=generation)
    refused = next(refusals(observed), None)
    if refused is not None:
        yield condition("Accepted", "False", refused.reason, refused.message, generation=generation)
    else:
        yield condition("Accepted", "True", "Accepted", generation=generation)
    yield _placed(observed, ready)
    yield _guest_agent(observed)
    yield _live_migratable(observed)


def _placed(observed: Observed, ready: Ready) -> Condition:
    """On this host; while it runs also where on it, and while it cannot start for want of a place, why not."""
    place = observed.place
    if FINALIZER not in (observed.vm.metadata.finalizers or []):
        return condition("Placed", "False", ready.reason, ready.message)
    if place.refusal is not None:
        return condition("Placed", "False", place.refusal.code, refusal_sentence(place.refusal))
    if observed.live is not None and place.placement is not None:
        return condition("Placed", "True", "Placed", placed_sentence(observed.host.name, place.placement))
    return condition("Placed", "True", "Placed", f"on host {observed.host.name}")


def _guest_agent(observed: Observed) -> Condition:
    machine = observed.live
    if machine is None:
        return condition("GuestAgentConnected", "False", "NotRunning")
    if machine.guest.guest is None:
        return condition("GuestAgentConnected", "False", "NoAnswer", "no guest agent answers")
    return condition("GuestAgentConnected", "True", "Connected")


def _to_be_movable(observed: Observed) -> str:
    """What to do about NICs that are functions of a SmartNIC: those swap while the VM runs."""
    launched = observed.launched
    nics = [one for one in launched.networks if one.data_plane is DataPlane.SMART_NIC] if launched is not None else []
    if not nics:
        return ""
    names = ", ".join(one.name for one in nics)
    return (
        f". NICs that are functions of a SmartNIC ({names}) are swapped for software ones while the VM runs: set their "
        "dataPlane in spec.networks to Host; the SmartNIC goes on switching them"
    )


def _live_migratable(observed: Observed) -> Condition:
    machine = observed.live
    if machine is None or machine.migration_blockers is None:
        return condition("LiveMigratable", "Unknown", "NotRunning" if machine is None else "NotAsked")
    if machine.migration_blockers:
        said = "; ".join(machine.migration_blockers)
        hint = _to_be_movable(observed)
        return condition("LiveMigratable", "False", "NonMigratableDevice", f"QEMU says: {said}{hint}")
    return condition("LiveMigratable", "True", "Migratable")
