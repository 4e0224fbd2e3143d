"""What the machine and its hypervisor say of themselves, in the words of the controllers."""

from __future__ import annotations

from carmel.controllers.host import HypervisorFacts
from carmel.controllers.host_facts import HostFacts
from carmel.controllers.placement import Machine, Means, plain_hardware
from carmel.hardware.reader import read_hardware
from carmel.hypervisor.commandline import Platform
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.pinning import Means as PinningMeans
from carmel.hypervisor.pinning import pinning_abilities
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
    return Means(
        pins=abilities.means is not PinningMeans.NOTHING,
        moves_memory=abilities.moves_memory,
        no_dedicated=abilities.no_dedicated,
    )
