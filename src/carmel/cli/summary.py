"""What people want to know first of a VM, an image or a host, before all its fields."""

from __future__ import annotations

from typing import Any

from carmel.cli.placement_words import cpus_in_words, nodes_in_words
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, condition, dig
from carmel.units import human_bytes, parse_bytes

Facts = list[tuple[str, str]]


def summary(kind: ResourceType, obj: JsonObject) -> Facts:
    """Name and value of each fact; an empty value is not known."""
    makers = {"VirtualMachine": _vm, "Image": _image, "Volume": _volume, "Host": host_facts}
    maker = makers.get(kind.kind)
    return maker(obj) if maker else []


def _vm(vm: JsonObject) -> Facts:
    status = dig(vm, "status") or {}
    cpu = dig(vm, "spec", "cpu", "count")
    return [
        ("Power", _joined(status.get("powerState"), _wanted(vm))),
        ("Ready", _ready(vm)),
        ("CPU", _joined(f"{cpu} vCPU" if cpu else "", status.get("cpuModel"), status.get("accelerator"))),
        ("Memory", str(dig(vm, "spec", "memory", "size") or "")),
        ("Addresses", ", ".join(str(one) for one in status.get("addresses") or [])),
        ("Ports", ", ".join(forwards(vm))),
        ("Host", str(status.get("hostName") or "")),
        ("Placed", _placed(status.get("placement"))),
        ("Last end", _last_end(status.get("lastTermination"))),
    ]


def _placed(placement: Any) -> str:
    if not isinstance(placement, dict):
        return ""
    policy = str(placement.get("policy") or "").lower()
    return f"NUMA node {nodes_in_words(placement)}, {policy} CPUs {cpus_in_words(placement)}"


def _wanted(vm: JsonObject) -> str:
    wanted, found = dig(vm, "spec", "powerState"), dig(vm, "status", "powerState")
    return f"(wanted: {wanted})" if found and wanted != found else ""


def _ready(obj: JsonObject) -> str:
    found = condition(obj, "Ready")
    return _joined(found.get("status"), found.get("reason") if found.get("status") != "True" else "")


def _last_end(end: Any) -> str:
    if not isinstance(end, dict):
        return ""
    return _joined(end.get("reason"), f"at {end['finishedAt']}" if end.get("finishedAt") else "", end.get("message"))


def forwards(vm: JsonObject) -> list[str]:
    """``127.0.0.1:2222 -> 22/tcp`` for each port of the host that leads into the VM."""
    return [
        f"{one.get('hostAddress')}:{one.get('hostPort')} -> {one.get('guestPort')}/{str(one.get('protocol')).lower()}"
        for nic in dig(vm, "status", "networks") or []
        for one in nic.get("forwards") or []
    ]


def _image(image: JsonObject) -> Facts:
    status = dig(image, "status") or {}
    percent = status.get("progressPercent")
    busy = status.get("phase") not in {"Ready", "Failed"}
    return [
        ("Phase", _joined(status.get("phase"), f"{percent}%" if busy and percent is not None else "")),
        ("Type", _joined(status.get("type"), status.get("architecture"))),
        ("Size", _bytes(status.get("virtualSizeBytes"))),
        ("On disk", _bytes(status.get("sizeBytes"))),
        ("Origin", str(status.get("origin") or "")),
        ("Error", str(dig(status, "error", "message") or "")),
    ]


def _volume(volume: JsonObject) -> Facts:
    status = dig(volume, "status") or {}
    return [
        ("Phase", str(status.get("phase") or "")),
        ("Capacity", _bytes(status.get("capacityBytes"))),
        ("On disk", _bytes(status.get("allocatedBytes"))),
        ("Used by", str(status.get("usedBy") or "")),
        ("Error", str(dig(status, "error", "message") or "")),
    ]


def host_facts(host: JsonObject) -> Facts:
    """The machine, what runs VMs on it, and what of it is given away."""
    status = dig(host, "status") or {}
    system, hypervisor = status.get("system") or {}, status.get("hypervisor") or {}
    capacity, allocated = status.get("capacity") or {}, status.get("allocated") or {}
    qemu = hypervisor.get("qemuVersion")
    return [
        ("Ready", _ready(host)),
        ("Machine", ", ".join(str(one) for one in (system.get("board"), system.get("architecture")) if one)),
        ("Processor", str(system.get("cpuModel") or "")),
        ("System", _joined(system.get("operatingSystem"), system.get("kernel"))),
        ("Page size", _bytes(system.get("pageSizeBytes"))),
        ("Hypervisor", _joined(hypervisor.get("accelerator"), f"QEMU {qemu}" if qemu else "")),
        ("VM machine type", str(hypervisor.get("defaultMachineType") or "")),
        ("UEFI firmware", _yes(hypervisor.get("firmware"))),
        ("QEMU sandbox", _yes(hypervisor.get("sandbox"))),
        ("KVM", _kvm(dig(status, "hardware", "kvm"))),
        ("CPUs", _share(allocated.get("cpus"), capacity.get("cpus"))),
        ("Memory", _share(_size(allocated.get("memory")), _size(capacity.get("memory")))),
        ("VMs", _text(status.get("virtualMachines"))),
        ("Kept for the host", _kept(status.get("placement"))),
        ("Dedicated CPUs", _no_dedicated(status.get("placement"))),
        ("Better places", _proposed(dig(status, "rebalance", "proposed"))),
        ("New VMs", "refused (unschedulable)" if dig(host, "spec", "unschedulable") else ""),
        ("Carmel", str(status.get("carmelVersion") or "")),
        ("Endpoints", ", ".join(str(one.get("url")) for one in status.get("endpoints") or [])),
    ]


def _kvm(kvm: Any) -> str:
    if not isinstance(kvm, dict):
        return ""
    if not kvm.get("present"):
        return "no"
    gic = f"GICv{kvm['gicVersion']}" if kvm.get("gicVersion") else ""
    few = "(a VM has at most 8 vCPUs)" if kvm.get("gicVersion") == 2 else ""
    return _joined("yes", gic, few, "nested" if kvm.get("nested") else "")


def _kept(placement: Any) -> str:
    if not isinstance(placement, dict):
        return ""
    cpus = placement.get("reservedCpus")
    return " and ".join(
        part for part in (f"CPUs {cpus}" if cpus else "", _bytes(placement.get("reservedMemoryBytes"))) if part
    )


def _no_dedicated(placement: Any) -> str:
    why = placement.get("noDedicated") if isinstance(placement, dict) else None
    return f"not here: {why}" if why else ""


def _proposed(moves: Any) -> str:
    if not isinstance(moves, list) or not moves:
        return ""
    count = "1 VM" if len(moves) == 1 else f"{len(moves)} VMs"
    return f"for {count}: `carmel host rebalance --dry-run`"


def _joined(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part not in (None, ""))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _yes(value: Any) -> str:
    return "" if value is None else "yes" if value else "no"


def _bytes(value: Any) -> str:
    return human_bytes(value) if isinstance(value, int) else ""


def _size(value: Any) -> str:
    try:
        return human_bytes(parse_bytes(value)) if value is not None else ""
    except ValueError:
        return str(value)


def _share(used: Any, whole: Any) -> str:
    if whole in (None, ""):
        return ""
    return f"{used} of {whole} given to VMs" if used not in (None, "") else str(whole)
