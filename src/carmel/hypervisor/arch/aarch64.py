"""64-bit Arm guests: the ``virt`` machine (QEMU's docs/system/arm/virt.rst)."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import Refused
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch.base import newest
from carmel.hypervisor.config import Accelerator, MachineConfig, UefiFirmware

# Emulated, these boot fastest (measured): older cores have fewer features to emulate, first of all no pointer
# authentication and no SVE.
_EMULATED_MODELS = ("cortex-a57", "cortex-a72", "neoverse-n1", "max")


class Aarch64:
    """The strategy of ``qemu-system-aarch64``."""

    name = "aarch64"

    def machine_type(self, qemu: QemuAbilities) -> str:
        found = newest(qemu.machine_types, "virt-")
        if found is None:
            raise Refused(f"{qemu.binary} has no versioned machine type virt-X.Y", code="NoMachineType")
        return found

    def machine_options(self, config: MachineConfig, accelerator: Accelerator) -> Mapping[str, str]:
        return {
            "gic-version": _gic_version(config.cpu.count, accelerator),
            # A kernel that is started directly gets a device tree, one behind UEFI gets ACPI.
            "acpi": "on" if isinstance(config.firmware, UefiFirmware) else "off",
            "dump-guest-core": "off",
        }

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
        model = wanted or next((name for name in _EMULATED_MODELS if name in qemu.cpu_models), "max")
        if model not in qemu.cpu_models:
            raise Refused(
                f"this QEMU does not know the CPU model {model}",
                code="UnknownCPUModel",
                field="spec.cpu.model",
                hint=f"use one of {', '.join(name for name in _EMULATED_MODELS if name in qemu.cpu_models)}",
            )
        # The architected algorithm of pointer authentication costs more than all else when emulated.
        return "max,pauth-impdef=on" if model == "max" else model

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        cpu = config.cpu
        return {"sockets": cpu.sockets, "clusters": cpu.clusters, "cores": cpu.cores, "threads": cpu.threads}


def _gic_version(vcpus: int, accelerator: Accelerator) -> str:
    match accelerator:
        case Accelerator.KVM:
            # The host's own: boards with a GICv2 cannot offer another, and cap a VM at 8 vCPUs.
            return "host"
        case Accelerator.HVF:
            # Hypervisor.framework has no GIC. QEMU emulates version 2 everywhere, version 3 (more than 8 vCPUs)
            # only in newer releases.
            return "2" if vcpus <= 8 else "3"
        case Accelerator.TCG:
            return "3"
