"""64-bit x86 guests, as far as the seam needs them: a kernel started directly on ``q35``. No UEFI yet."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import Refused
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch.base import newest
from carmel.hypervisor.config import Accelerator, MachineConfig, UefiFirmware


class X86:
    """The strategy of ``qemu-system-x86_64``."""

    name = "x86_64"

    def machine_type(self, qemu: QemuAbilities) -> str:
        found = newest(qemu.machine_types, "pc-q35-")
        if found is None:
            raise Refused(f"{qemu.binary} has no versioned machine type pc-q35-X.Y", code="NoMachineType")
        return found

    def machine_options(self, config: MachineConfig, _accelerator: Accelerator) -> Mapping[str, str]:
        if isinstance(config.firmware, UefiFirmware):
            raise Refused(
                "x86-64 guests cannot boot by UEFI here yet",
                code="UnsupportedFirmware",
                field="spec.firmware.type",
                hint="use the firmware type DirectKernel",
            )
        return {"hpet": "off", "smm": "off", "vmport": "off", "dump-guest-core": "off"}

    def cpu_model(self, config: MachineConfig, qemu: QemuAbilities, accelerator: Accelerator) -> str:
        model = config.cpu.model or ("max" if accelerator is Accelerator.TCG else "host")
        if model != "host" and model not in qemu.cpu_models:
            raise Refused(
                f"this QEMU does not know the CPU model {model}", code="UnknownCPUModel", field="spec.cpu.model"
            )
        return model

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        cpu = config.cpu
        # No x86 machine of QEMU 7.2 has clusters: their cores count to the socket.
        return {"sockets": cpu.sockets, "cores": cpu.clusters * cpu.cores, "threads": cpu.threads}
