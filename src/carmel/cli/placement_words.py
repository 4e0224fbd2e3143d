"""``status.placement`` for people: which vCPU is where, in as few words as tell it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carmel.cli.text import safe
from carmel.client.objects import JsonObject, dig
from carmel.cpulist import format_cpu_list, parse_cpu_list
from carmel.units import human_bytes


def placement_lines(placement: JsonObject) -> Iterator[tuple[str, str]]:
    """Name and value of each fact, reasons last; all of it but the bare lists."""
    yield "Policy", str(placement.get("policy") or "")
    yield "NUMA nodes", nodes_in_words(placement)
    yield "Pages", human_bytes(placement["pageSizeBytes"]) if placement.get("pageSizeBytes") else ""
    for line in vcpu_map(placement):
        yield "vCPUs", line
    yield "QEMU's threads", f"CPUs {placement['emulatorCpus']}" if placement.get("emulatorCpus") else ""
    for node in placement.get("guestNodes") or ():
        size = human_bytes(node.get("memoryBytes") or 0)
        yield (
            "Guest node",
            f"{node.get('id')}: vCPUs {node.get('vcpus')}, {size}, on the host's node {node.get('hostNode')}",
        )
    for reason in placement.get("reasons") or ():
        yield "Why here", str(reason)
    yield "Next best", str(placement.get("nextBest") or "")


def nodes_in_words(placement: JsonObject) -> str:
    return ",".join(str(node) for node in placement.get("memoryNodes") or ())


def cpus_in_words(placement: JsonObject) -> str:
    """All CPUs of its vCPUs as one list; what cannot be read as it is."""
    lists = _cpu_lists(placement)
    try:
        return format_cpu_list(cpu for cpus in lists for cpu in parse_cpu_list(cpus))
    except ValueError:
        return safe(",".join(lists))


def vcpu_map(placement: JsonObject) -> Iterator[str]:
    """``0-3 on CPUs 4-7, one each``, ``0-7 float over CPUs 0-39``."""
    try:
        sets = [parse_cpu_list(cpus) for cpus in _cpu_lists(placement)]
    except ValueError:
        sets = []
    step = 1 if placement.get("policy") == "Dedicated" else 0
    start = 0
    while start < len(sets):
        end = _run_end(sets, start, step)
        yield _run_in_words(sets, start, end, step)
        start = end


def _run_end(sets: Sequence[tuple[int, ...]], start: int, step: int) -> int:
    """Behind the last vCPU that follows in the same way: the next CPU each, or all the same CPUs."""
    end = start + 1
    while end < len(sets) and sets[end] == tuple(cpu + step for cpu in sets[end - 1]):
        end += 1
    return end


def _run_in_words(sets: Sequence[tuple[int, ...]], start: int, end: int, step: int) -> str:
    one = end == start + 1
    vcpus = str(start) if one else f"{start}-{end - 1}"
    if not step:
        few = "CPU" if len(sets[start]) == 1 else "CPUs"
        return f"{vcpus} float{'s' if one else ''} over {few} {format_cpu_list(sets[start])}"
    cpus = format_cpu_list(cpu for cpus in sets[start:end] for cpu in cpus)
    return f"{vcpus} on CPU {cpus}" if one else f"{vcpus} on CPUs {cpus}, one each"


def _cpu_lists(placement: JsonObject) -> list[str]:
    return [str(dig(vcpu, "hostCpus") or "") for vcpu in placement.get("vcpus") or ()]
