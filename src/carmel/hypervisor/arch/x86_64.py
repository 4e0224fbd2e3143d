"""64-bit x86 guests, as far as the seam needs them: a kernel started directly on ``q35``. No UEFI yet."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch.base import check_nesting, newest, no_iommu
from carmel.hypervisor.config import Accelerator, MachineConfig, UefiFirmware


class X86:
    """The strategy of ``qemu-system-x86_64``."""

    name = "x86_64"
    ram_id = "pc.ram"

    def machine_type(self, qemu: QemuAbilities) -> str:
        found = newest(qemu.machine_types, "pc-q35-")
        if found is None:
            raise Refused(f"{qemu.binary} has no versioned machine type pc-q35-X.Y", code="NoMachineType")
        return found

    def machine_options(self, config: MachineConfig, accelerator: Accelerator, kvm: Kvm) -> Mapping[str, str]:
        check_nesting(config, accelerator, kvm)
        if config.cpu.gic_version is not None:
            raise Refused("x86-64 guests have no GIC", code="UnknownGICVersion", field="spec.cpu.gicVersion")
        if isinstance(config.firmware, UefiFirmware):
            raise Refused(
                "x86-64 guests cannot boot by UEFI here yet",
                code="UnsupportedFirmware",
                field="spec.firmware.type",
                hint="use the firmware type DirectKernel",
            )
        # Distances tell enough; the guest's table of latencies and bandwidths (HMAT) would be invented.
        numa = {"hmat": "off"} if config.numa else {}
        return {"hpet": "off", "smm": "off", "vmport": "off", "dump-guest-core": "off", **numa}

    def iommu_options(self, _qemu: QemuAbilities) -> Mapping[str, str]:
        raise no_iommu("x86-64 guests get none yet")

    def cpu_model(self, config: MachineConfig, qemu: QemuAbilities, accelerator: Accelerator) -> str:
        model = config.cpu.model or ("max" if accelerator is Accelerator.TCG else "host")
        if model != "host" and model not in qemu.cpu_models:
            raise Refused(
                f"this QEMU does not know the CPU model {model}", code="UnknownCPUModel", field="spec.cpu.model"
            )
        # Emulated, only AMD's extension is there; under KVM the host's own comes with the model ``host``.
        return f"{model},svm=on" if config.cpu.nested and accelerator is Accelerator.TCG else model

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        cpu = config.cpu
        # No x86 machine of QEMU 7.2 has clusters: their cores count to the socket.
        return {"sockets": cpu.sockets, "cores": cpu.clusters * cpu.cores, "threads": cpu.threads}
