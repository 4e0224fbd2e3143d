"""Pure: what a start waits for, and what makes a spec unacceptable on this host."""

from __future__ import annotations

from collections.abc import Iterator

from carmel.controllers.placement.words import refusal_sentence
from carmel.controllers.runtime import find_condition
from carmel.controllers.virtualmachine.machineports import is_made_for
from carmel.controllers.virtualmachine.observed import VM_UID_LABEL, DiskView, NicView, Observed, PortView
from carmel.controllers.virtualmachine.steps import Ready
from carmel.resources.image import ImagePhase, ImageType
from carmel.resources.network import Network, NetworkProvider
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import FirmwareType
from carmel.resources.volume import VolumePhase
from carmel.units import human_bytes, parse_bytes


def refusals(observed: Observed) -> Iterator[Ready]:
    """Why this host cannot run such a VM at all: changing the spec (or the host) is the only way."""
    spec, limits = observed.vm.spec, observed.host.limits
    if limits.max_vcpus is not None and spec.cpu.count > limits.max_vcpus:
        yield Ready(
            False,
            "TooManyCPUs",
            f"spec.cpu.count is {spec.cpu.count}, but a VM can have at most {limits.max_vcpus} vCPUs on this host",
        )
    size = parse_bytes(spec.memory.size)
    if limits.memory_bytes is not None and size > limits.memory_bytes:
        yield Ready(
            False,
            "InsufficientMemory",
            f"spec.memory.size is {spec.memory.size}, but this host has {human_bytes(limits.memory_bytes)}",
        )
    refusal = observed.place.refusal
    if refusal is not None and refusal.permanent:
        yield Ready(False, refusal.code, refusal_sentence(refusal))


def start_waits_for(observed: Observed) -> Ready | None:
    """The first thing that is missing, or ``None``: everything is there."""
    return next(_missing(observed), None)


def _missing(observed: Observed) -> Iterator[Ready]:
    if observed.host.unschedulable:
        yield Ready(False, "HostUnschedulable", f"host {observed.host.name} starts no VMs: spec.unschedulable is true")
    for view in observed.disks:
        found = disk_waits_for(view, observed)
        if found is not None:
            yield found
    if observed.vm.spec.firmware.type is FirmwareType.DIRECT_KERNEL:
        yield from _kernel(observed)
    for nic in observed.nics:
        found = nic_waits_for(nic, observed)
        if found is not None:
            yield found
    for name in observed.missing_secrets:
        yield Ready(False, "WaitingForSecret", f"there is no {name} in this namespace: make it")


def disk_waits_for(view: DiskView, observed: Observed) -> Ready | None:
    """Its Volume; ``None``: it can be given to the VM."""
    name, volume = view.volume_name, view.volume
    if volume is None:
        if view.disk.volume_ref is None:
            return Ready(False, "WaitingForVolume", f"Volume {name} is being made")
        return Ready(False, "WaitingForVolume", f"there is no Volume {name}: make it")
    if volume.metadata.deletion_timestamp is not None:
        return Ready(False, "WaitingForVolume", f"Volume {name} is being deleted")
    if view.disk.volume_ref is None and not made_for(view, observed.vm.metadata.uid):
        return Ready(
            False,
            "VolumeNameTaken",
            f"Volume {name} was not made for this VM: name it in spec.disks (volumeRef) to use it, or delete it",
        )
    holder = volume.status.used_by
    if holder not in {None, observed.vm.metadata.name} and view.holder_alive:
        return Ready(False, "VolumeInUse", f"Volume {name} is attached to VirtualMachine {holder}")
    status = volume.status
    if status.phase is VolumePhase.FAILED or (status.phase is not VolumePhase.READY and status.error is not None):
        said = status.error.message if status.error is not None else "it says no more"
        return Ready(False, "VolumeFailed", f"Volume {name} failed: {said}")
    if status.phase is not VolumePhase.READY:
        return Ready(False, "WaitingForVolume", f"Volume {name} is {_volume_progress(view)}")
    return None


def nic_waits_for(view: NicView, observed: Observed) -> Ready | None:
    """Its Network or its Port; ``None``: it can be plugged in."""
    network = view.network
    if network is None:
        return Ready(False, "WaitingForNetwork", f"there is no Network {view.nic.network_ref.name}: make it")
    name = network.metadata.name
    if network.metadata.deletion_timestamp is not None:
        return Ready(False, "WaitingForNetwork", f"Network {name} is being deleted")
    plane = _plane(view, network)
    if plane is not None:
        return plane
    # A user network needs nothing that could be missing: what realises it is looked for by the start itself.
    if network.spec.provider is not NetworkProvider.USER:
        ready = find_condition(network.status, "Ready")
        if ready is None or ready.observed_generation != network.metadata.generation:
            return Ready(False, "WaitingForNetwork", f"Network {name} is being made")
        if ready.status != "True":
            return Ready(False, "WaitingForNetwork", f"Network {name} is not ready: {ready.message or ready.reason}")
    return _port(view.port, observed) if view.port is not None else None


def _plane(view: NicView, network: Network) -> Ready | None:
    """Whether who is to switch the NIC can: the network's uplinks are either the host's or the SmartNIC's."""
    if view.nic.data_plane is not DataPlane.SMART_NIC or network.spec.data_plane is DataPlane.SMART_NIC:
        return None
    return Ready(
        False,
        "NotOffloaded",
        f"Network {network.metadata.name} is switched by the host, and its uplinks are the host's: set its "
        "spec.dataPlane to SmartNIC, or leave dataPlane out of the NIC",
    )


def _port(view: PortView, observed: Observed) -> Ready | None:
    port = view.port
    if port is None:
        return Ready(False, "WaitingForPort", f"Port {view.name} is being made")
    if not is_made_for(port, observed.vm):
        return Ready(
            False,
            "PortNameTaken",
            f"Port {view.name} was not made for this VM: delete it, or give the NIC another name",
        )
    accepted = find_condition(port.status, "Accepted")
    if accepted is None or accepted.observed_generation != port.metadata.generation:
        return Ready(False, "WaitingForPort", f"Port {view.name} is being looked at")
    if accepted.status != "True":
        return Ready(False, accepted.reason, f"Port {view.name}: {accepted.message or accepted.reason}")
    return None


def _volume_progress(view: DiskView) -> str:
    volume = view.volume
    assert volume is not None
    told = next((one.message for one in volume.status.conditions or [] if one.type == "Ready" and one.message), "")
    phase = (volume.status.phase or VolumePhase.PENDING).value
    return f"{phase}: {told}" if told else phase


def _kernel(observed: Observed) -> Iterator[Ready]:
    reference = observed.vm.spec.firmware.image_ref
    name = reference.name if reference is not None else ""
    image = observed.kernel_image
    if image is None:
        yield Ready(False, "WaitingForImage", f"there is no Image {name}: make it")
    elif image.status.phase is ImagePhase.FAILED:
        said = image.status.error.message if image.status.error is not None else "it says no more"
        yield Ready(False, "ImageFailed", f"Image {name} failed: {said}")
    elif image.status.phase is not ImagePhase.READY:
        progress = f" {image.status.progress_percent} %" if image.status.progress_percent is not None else ""
        phase = (image.status.phase or ImagePhase.PENDING).value
        yield Ready(False, "WaitingForImage", f"Image {name} is {phase}{progress}")
    elif image.status.type is not ImageType.KERNEL:
        yield Ready(
            False, "NotAKernelImage", f"Image {name} is a disk: firmware type DirectKernel needs a kernel image"
        )


def made_for(view: DiskView, uid: str | None) -> bool:
    volume = view.volume
    return volume is not None and (volume.metadata.labels or {}).get(VM_UID_LABEL) == uid
