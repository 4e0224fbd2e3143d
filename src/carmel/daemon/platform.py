"""What the machine and its hypervisor say of themselves, in the words of the controllers."""

from __future__ import annotations

import os
from pathlib import Path

from carmel.controllers.host import HypervisorFacts
from carmel.controllers.host_facts import HostFacts
from carmel.controllers.placement import Machine, Means, plain_hardware
from carmel.cpulist import parse_cpu_list
from carmel.hardware.reader import read_hardware
from carmel.hypervisor.commandline import Platform
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.pinning import Means as PinningMeans
from carmel.hypervisor.pinning import pinning_abilities
from carmel.hypervisor.pinning.abilities import Hierarchy
from carmel.resources.host import HypervisorInfo
from carmel.resources.virtualmachine import GICV2_VCPUS


def describe(platform: Platform, facts: HostFacts) -> HypervisorFacts:
    """Under KVM a VM has the host's own interrupt controller, and a GICv2 has eight CPU interfaces."""
    qemu = platform.qemu
    machine_type = platform.architecture.machine_type(qemu)
    most = qemu.machine_types[machine_type]
    if platform.accelerator is Accelerator.KVM and facts.gic_version == 2:
        most = min(most, GICV2_VCPUS)
    info = HypervisorInfo(
        accelerator=platform.accelerator.value,
        qemu_version=qemu.version,
        qemu_binary=str(qemu.binary),
        default_machine_type=machine_type,
        firmware=platform.firmware is not None,
        sandbox="sandbox" in qemu.options,
    )
    return HypervisorFacts(info, most)


def this_machine(facts: HostFacts) -> Machine:
    """This machine, as placement looks at it."""
    plain = plain_hardware(
        facts.system.architecture, facts.system.page_size_bytes or 4096, facts.cpus, facts.memory_bytes
    )
    return Machine(read_hardware, _means, plain)


def _means() -> Means:
    abilities = pinning_abilities()
    cpus, nodes = _allowed(abilities.hierarchy)
    return Means(
        pins=abilities.means is not PinningMeans.NOTHING,
        moves_memory=abilities.moves_memory,
        no_dedicated=abilities.no_dedicated,
        cpus=cpus,
        nodes=nodes,
    )


def _allowed(hierarchy: Hierarchy | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """The CPUs and memory nodes that cpusets below this one can have (cgroup-v2.rst and cgroup-v1/cpusets.rst): all of
    the machine's, unless this is a container. Without cpusets VMs have what this process has."""
    if hierarchy is None:
        return (frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None), None
    cpus, nodes = (
        ("cpuset.cpus.effective", "cpuset.mems.effective")
        if hierarchy.version == 2
        else ("cpuset.effective_cpus", "cpuset.effective_mems")
    )
    return _numbers(hierarchy.mount / cpus), _numbers(hierarchy.mount / nodes)


def _numbers(file: Path) -> frozenset[int] | None:
    try:
        return frozenset(parse_cpu_list(file.read_text())) or None
    except (OSError, ValueError):
        return None
