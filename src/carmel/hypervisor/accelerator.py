"""Which accelerator this host can use for a guest architecture."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.account import KVM_DEVICE
from carmel.hypervisor.config import Accelerator

_MACHINE_NAMES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True)
class HostSystem:
    """What of this host decides: ``kvm`` is true if /dev/kvm can be opened for reading and writing. ``cpus`` counts
    those that we may run on."""

    machine: str
    system: str
    kvm: bool
    cpus: int = 1

    @classmethod
    def detect(cls) -> HostSystem:
        machine = platform.machine().lower()
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        kvm = os.access(KVM_DEVICE, os.R_OK | os.W_OK)
        return cls(_MACHINE_NAMES.get(machine, machine), sys.platform, kvm, cpus)


@dataclass(frozen=True, slots=True)
class Choice:
    """``why`` is a sentence for people, about what would be faster."""

    accelerator: Accelerator
    why: str


def choose_accelerator(qemu: QemuAbilities, host: HostSystem) -> Choice:
    """KVM or HVF where the guest's processor is the host's own, else emulation."""
    if host.machine != qemu.target:
        return Choice(Accelerator.TCG, f"{qemu.target} is emulated on this {host.machine} machine")
    if host.system == "darwin":
        if "hvf" in qemu.accelerators:
            return Choice(Accelerator.HVF, "Hypervisor.framework")
        return Choice(Accelerator.TCG, "this QEMU was built without Hypervisor.framework")
    if "kvm" not in qemu.accelerators:
        return Choice(Accelerator.TCG, "this QEMU was built without KVM")
    if not host.kvm:
        return Choice(Accelerator.TCG, f"{KVM_DEVICE} is missing or may not be opened: join the group kvm")
    return Choice(Accelerator.KVM, "KVM")
