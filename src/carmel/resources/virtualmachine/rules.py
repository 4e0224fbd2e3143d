"""What of a spec does not fit together, beyond what each field says for itself."""

from __future__ import annotations

import re

from carmel.cpulist import parse_cpu_list
from carmel.errors import Cause
from carmel.resources.base import JsonObject
from carmel.resources.virtualmachine.compute import Cpu
from carmel.resources.virtualmachine.devices import FirmwareType, Protocol
from carmel.resources.virtualmachine.spec import VirtualMachineSpec
from carmel.units import format_bytes, parse_bytes

GICV2_VCPUS = 8
"""The CPU interfaces that a GICv2 has (Arm IHI 0048, "GIC architecture specification, version 2")."""


def validate(new: JsonObject, _old: JsonObject | None) -> list[Cause]:
    spec = VirtualMachineSpec.model_validate(new.get("spec") or {})
    return [
        *_cpu_causes(spec.cpu),
        *_memory_causes(spec),
        *_numa_causes(spec),
        *_firmware_causes(spec),
        *_unique_names("spec.disks", [disk.name for disk in spec.disks]),
        *_unique_names("spec.networks", [nic.name for nic in spec.networks]),
        *_disk_causes(spec),
        *_forward_causes(spec),
    ]


def _cpu_causes(cpu: Cpu) -> list[Cause]:
    shape = cpu.topology
    if cpu.gic_version == 2 and cpu.count > GICV2_VCPUS:
        return [Cause("spec.cpu.gicVersion", f"a GICv2 takes at most {GICV2_VCPUS} vCPUs")]
    if shape is None:
        return []
    product = shape.sockets * shape.clusters * shape.cores * shape.threads
    if product == cpu.count:
        return []
    return [
        Cause(
            "spec.cpu.topology",
            f"sockets x clusters x cores x threads is {product}, but spec.cpu.count is {cpu.count}",
        )
    ]


def _memory_causes(spec: VirtualMachineSpec) -> list[Cause]:
    page = spec.memory.page_size
    if page is None or parse_bytes(spec.memory.size) % parse_bytes(page) == 0:
        return []
    return [Cause("spec.memory.pageSize", f"spec.memory.size is {spec.memory.size}: no whole number of {page} pages")]


def _numa_causes(spec: VirtualMachineSpec) -> list[Cause]:
    nodes = spec.numa.nodes if spec.numa is not None else []
    if not nodes:
        return []
    causes = []
    vcpus = [vcpu for node in nodes for vcpu in parse_cpu_list(node.cpus)]
    if sorted(vcpus) != list(range(spec.cpu.count)):
        last = spec.cpu.count - 1
        causes.append(Cause("spec.numa.nodes", f"each of the vCPUs 0 to {last} must be in exactly one node"))
    total = sum(parse_bytes(node.memory) for node in nodes)
    if total != parse_bytes(spec.memory.size):
        causes.append(
            Cause("spec.numa.nodes", f"their memory adds up to {format_bytes(total)}, not {spec.memory.size}")
        )
    page = parse_bytes(spec.memory.page_size) if spec.memory.page_size is not None else 1
    for index, node in enumerate(nodes):
        field = f"spec.numa.nodes[{index}]"
        if parse_bytes(node.memory) % page:
            causes.append(Cause(f"{field}.memory", f"is no whole number of {spec.memory.page_size} pages"))
        causes += _distance_causes(field, index, node.distances, len(nodes))
    return causes


def _distance_causes(field: str, index: int, distances: list[int] | None, nodes: int) -> list[Cause]:
    if distances is None:
        return []
    if len(distances) != nodes:
        return [Cause(f"{field}.distances", f"needs one number for each of the {nodes} nodes")]
    if distances[index] != 10 or any(far == 10 for other, far in enumerate(distances) if other != index):
        return [Cause(f"{field}.distances", "is 10 to the node itself, and more to the others")]
    return []


def _firmware_causes(spec: VirtualMachineSpec) -> list[Cause]:
    firmware = spec.firmware
    direct = firmware.type is FirmwareType.DIRECT_KERNEL
    causes = []
    if direct and firmware.image_ref is None:
        causes.append(
            Cause("spec.firmware.imageRef", "is required: DirectKernel boots a kernel Image", "FieldValueRequired")
        )
    for name, value in (("imageRef", firmware.image_ref), ("commandLine", firmware.command_line)):
        if not direct and value is not None:
            causes.append(
                Cause(f"spec.firmware.{name}", "may only be set with type DirectKernel", "FieldValueForbidden")
            )
    if firmware.command_line and re.search(r"[^\x20-\x7e]", firmware.command_line):
        causes.append(Cause("spec.firmware.commandLine", "must be printable ASCII on one line"))
    return causes


def _unique_names(field: str, names: list[str]) -> list[Cause]:
    return [
        Cause(f"{field}[{index}].name", f"{name!r} stands here twice", "FieldValueDuplicate")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _disk_causes(spec: VirtualMachineSpec) -> list[Cause]:
    causes = []
    volumes: list[str] = []
    for index, disk in enumerate(spec.disks):
        field = f"spec.disks[{index}]"
        if disk.volume_ref is not None and (disk.image_ref is not None or disk.size is not None):
            causes.append(
                Cause(
                    field,
                    "volumeRef names a disk that exists: imageRef and size do not go with it",
                    "FieldValueForbidden",
                )
            )
        if disk.volume_ref is None and disk.image_ref is None and disk.size is None:
            causes.append(Cause(field, "needs one of volumeRef, imageRef or size", "FieldValueRequired"))
        if disk.volume_ref is not None:
            if disk.volume_ref.name in volumes:
                causes.append(Cause(f"{field}.volumeRef.name", "is attached twice", "FieldValueDuplicate"))
            volumes.append(disk.volume_ref.name)
    return causes


def _forward_causes(spec: VirtualMachineSpec) -> list[Cause]:
    causes = []
    taken: set[tuple[str, Protocol, int]] = set()
    for nic_index, nic in enumerate(spec.networks):
        for index, forward in enumerate(nic.forwards or []):
            field = f"spec.networks[{nic_index}].forwards[{index}]"
            octets = [int(part) for part in forward.host_address.split(".") if part]
            if len(octets) != 4 or any(octet > 255 for octet in octets):
                causes.append(Cause(f"{field}.hostAddress", "is not an IPv4 address"))
            if forward.host_port is None:
                continue
            key = (forward.host_address, forward.protocol, forward.host_port)
            if key in taken:
                causes.append(Cause(f"{field}.hostPort", "is forwarded twice", "FieldValueDuplicate"))
            taken.add(key)
    return causes
