"""What the hypervisor says of itself, in the Host's words."""

from __future__ import annotations

from carmel.controllers.host import GICV2_CPUS, HypervisorFacts
from carmel.controllers.host_facts import HostFacts
from carmel.hypervisor.commandline import Platform
from carmel.hypervisor.config import Accelerator
from carmel.resources.host import HypervisorInfo


def describe(platform: Platform, facts: HostFacts) -> HypervisorFacts:
    """Under KVM a VM has the host's own interrupt controller, and a GICv2 has eight CPU interfaces."""
    qemu = platform.qemu
    machine_type = platform.architecture.machine_type(qemu)
    most = qemu.machine_types[machine_type]
    if platform.accelerator is Accelerator.KVM and facts.gic_version == 2:
        most = min(most, GICV2_CPUS)
    info = HypervisorInfo(
        accelerator=platform.accelerator.value,
        qemu_version=qemu.version,
        qemu_binary=str(qemu.binary),
        default_machine_type=machine_type,
        firmware=platform.firmware is not None,
        sandbox="sandbox" in qemu.options,
    )
    return HypervisorFacts(info, most)
