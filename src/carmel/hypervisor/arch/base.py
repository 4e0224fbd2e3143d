"""The face of a guest architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from carmel.errors import Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.config import Accelerator, MachineConfig


class Architecture(Protocol):
    """One processor family, as pure functions of what QEMU can do."""

    @property
    def name(self) -> str:
        """As in ``qemu-system-NAME``."""
        ...

    @property
    def ram_id(self) -> str:
        """What the machine calls its memory (``default-ram-id`` of QMP's query-machines)."""
        ...

    def machine_type(self, qemu: QemuAbilities) -> str:
        """The newest versioned machine type: its devices stay the same when QEMU is upgraded.

        Raises ``Refused`` (``NoMachineType``).
        """
        ...

    def machine_options(self, config: MachineConfig, accelerator: Accelerator, kvm: Kvm, /) -> Mapping[str, str]:
        """Options of ``-machine`` beside its type. Raises ``Refused`` for what this machine cannot be:
        ``NestedVirtualizationUnavailable``, ``UnknownGICVersion``, ``TooManyCPUs``, ``UnsupportedFirmware``."""
        ...

    def iommu_options(self, qemu: QemuAbilities, /) -> Mapping[str, str]:
        """Options of ``-machine`` that give the guest an IOMMU. Raises ``Refused`` (``IOMMUUnavailable``)."""
        ...

    def cpu_model(self, config: MachineConfig, qemu: QemuAbilities, accelerator: Accelerator) -> str:
        """The value of ``-cpu``, features included. Raises ``Refused`` (``UnknownCPUModel``)."""
        ...

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        """Options of ``-smp`` in the levels that this machine has."""
        ...


def check_nesting(config: MachineConfig, accelerator: Accelerator, kvm: Kvm) -> None:
    """Raises ``Refused`` (``NestedVirtualizationUnavailable``) if the guest is to run VMs and cannot here."""
    if not config.cpu.nested or accelerator is Accelerator.TCG or (accelerator is Accelerator.KVM and kvm.nested):
        return
    reason = "this host's KVM does not offer it" if accelerator is Accelerator.KVM else "only KVM and emulation have it"
    raise Refused(
        f"the guest cannot run VMs of its own under {accelerator.value}: {reason}",
        code="NestedVirtualizationUnavailable",
        field="spec.cpu.nestedVirtualization",
        hint="leave spec.cpu.nestedVirtualization out, or run the VM on a host that can nest or that emulates",
    )


def no_iommu(reason: str) -> Refused:
    return Refused(
        f"the guest cannot have an IOMMU: {reason}",
        code="IOMMUUnavailable",
        field="spec.iommu",
        hint="leave spec.iommu out",
    )


def newest(names: Iterable[str], prefix: str) -> str | None:
    """The name ``prefix`` + ``MAJOR.MINOR`` with the highest numbers, ``None`` without any."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.(\d+)")
    versions = [(int(match[1]), int(match[2]), name) for name in names if (match := pattern.fullmatch(name))]
    return max(versions)[2] if versions else None
