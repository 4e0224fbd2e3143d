"""64-bit Arm guests: the ``virt`` machine (QEMU's docs/system/arm/virt.rst)."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch.base import check_nesting, newest, no_iommu
from carmel.hypervisor.config import Accelerator, CpuConfig, MachineConfig, UefiFirmware
from carmel.resources.virtualmachine import GICV2_VCPUS

# Emulated, these boot fastest (measured): older cores have fewer features to emulate, first of all no pointer
# authentication and no SVE.
_EMULATED_MODELS = ("cortex-a57", "cortex-a72", "neoverse-n1", "max")
# A hypervisor in the guest runs twice as fast where its kernel lives at EL2 itself (VHE: Arm ARM, FEAT_VHE, from
# version 8.1), which the older cores lack.
_NESTING_MODELS = ("neoverse-n1", "max", *_EMULATED_MODELS)


class Aarch64:
    """The strategy of ``qemu-system-aarch64``."""

    name = "aarch64"
    ram_id = "mach-virt.ram"

    def machine_type(self, qemu: QemuAbilities) -> str:
        found = newest(qemu.machine_types, "virt-")
        if found is None:
            raise Refused(f"{qemu.binary} has no versioned machine type virt-X.Y", code="NoMachineType")
        return found

    def machine_options(self, config: MachineConfig, accelerator: Accelerator, kvm: Kvm) -> Mapping[str, str]:
        check_nesting(config, accelerator, kvm)
        return {
            "gic-version": _gic_version(config.cpu, accelerator, kvm),
            **({"virtualization": "on"} if config.cpu.nested else {}),
            # A kernel that is started directly gets a device tree, one behind UEFI gets ACPI.
            "acpi": "on" if isinstance(config.firmware, UefiFirmware) else "off",
            "dump-guest-core": "off",
        }

    def iommu_options(self, qemu: QemuAbilities) -> Mapping[str, str]:
        if "arm-smmuv3" not in qemu.devices:
            raise no_iommu("this QEMU has no SMMUv3")
        return {"iommu": "smmuv3"}

    def cpu_model(self, config: MachineConfig, qemu: QemuAbilities, accelerator: Accelerator) -> str:
        wanted = config.cpu.model
        if accelerator is not Accelerator.TCG:
            if wanted not in (None, "host", "max"):
                raise Refused(
                    f"the CPU model {wanted} cannot be had under {accelerator.value}, only the host's own",
                    code="UnknownCPUModel",
                    field="spec.cpu.model",
                    hint="leave spec.cpu.model out",
                )
            return "host"
        models = _NESTING_MODELS if config.cpu.nested else _EMULATED_MODELS
        model = wanted or next((name for name in models if name in qemu.cpu_models), "max")
        if model not in qemu.cpu_models:
            raise Refused(
                f"this QEMU does not know the CPU model {model}",
                code="UnknownCPUModel",
                field="spec.cpu.model",
                hint=f"use one of {', '.join(name for name in _EMULATED_MODELS if name in qemu.cpu_models)}",
            )
        if model != "max":
            return model
        # The architected algorithm of pointer authentication costs more than all else when emulated; a hypervisor in
        # the guest would save and restore its keys, and SVE's registers, at every entry.
        return "max,pauth=off,sve=off" if config.cpu.nested else "max,pauth-impdef=on"

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        cpu = config.cpu
        return {"sockets": cpu.sockets, "clusters": cpu.clusters, "cores": cpu.cores, "threads": cpu.threads}


def _gic_version(cpu: CpuConfig, accelerator: Accelerator, kvm: Kvm) -> str:
    match accelerator:
        case Accelerator.KVM:
            # The host's own: boards with a GICv2 cannot offer another.
            version, value = kvm.gic_version, "host"
            if cpu.gic_version not in (None, version):
                raise _no_such_gic(cpu.gic_version, version)
        case Accelerator.HVF:
            # Hypervisor.framework has no GIC. QEMU emulates version 2 everywhere, version 3 (more than 8 vCPUs)
            # only in newer releases.
            version = cpu.gic_version or (2 if cpu.count <= GICV2_VCPUS else 3)
            value = str(version)
        case Accelerator.TCG:
            version = cpu.gic_version or 3
            value = str(version)
    if version == 2 and cpu.count > GICV2_VCPUS:
        raise Refused(
            f"a GICv2 takes at most {GICV2_VCPUS} vCPUs, and this VM is to have {cpu.count}",
            code="TooManyCPUs",
            field="spec.cpu.count",
        )
    return value


def _no_such_gic(wanted: int | None, version: int | None) -> Refused:
    has = f"this host has a GICv{version}" if version is not None else "which one this host has is not known"
    return Refused(
        f"a GICv{wanted} cannot be had under kvm, only the host's own: {has}",
        code="UnknownGICVersion",
        field="spec.cpu.gicVersion",
        hint="leave spec.cpu.gicVersion out",
    )
