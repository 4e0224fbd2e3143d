"""The machines of the golden command lines: every accelerator, firmware, bus and recorded QEMU.

Paths begin with /golden, so that the system tests can put real files in their places.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carmel.hardware.model import Kvm
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.commandline import Platform, Sockets, Start, command_line
from carmel.hypervisor.config import (
    Accelerator,
    CpuConfig,
    DiskConfig,
    FunctionDiskConfig,
    GuestNodeConfig,
    KernelFirmware,
    MachineConfig,
    NbdDiskConfig,
    NicConfig,
    UefiFirmware,
)
from carmel.hypervisor.firmware import FirmwareFiles
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.psk import Psk
from carmel.paths import MachinePaths
from carmel.resources.virtualmachine import DiskBus
from carmel.units import MIB

HERE = Path(__file__).parent
ROOT = Path("/golden")
SOCKETS = Sockets(qmp=101, serial=102, agent=103)
PATHS = MachinePaths(state=ROOT / "state", runtime=ROOT / "run")
VERSIONS = ("7.2", "10.0")
NBD_DISK = NbdDiskConfig(
    "far", DiskBus.NVME, "192.168.100.2", 10809, "disk,ro", Psk("host", "0123456789abcdef" * 4), "far", 60
)
UID = "3b241101-e2bb-4255-8caf-4136c566a962"


def abilities(version: str) -> QemuAbilities:
    """What a real binary of this version said, once."""
    return QemuAbilities.from_json(json.loads((HERE / "abilities" / f"qemu-{version}.json").read_text()))


SHAPES: Mapping[str, Sequence[Accelerator]] = {
    **{bus.value: tuple(Accelerator) for bus in DiskBus},
    "numa": (Accelerator.KVM, Accelerator.TCG),
    "bound": (Accelerator.KVM, Accelerator.TCG),
    "hugepages": (Accelerator.KVM, Accelerator.TCG),
    "numa-hugepages": (Accelerator.KVM, Accelerator.TCG),
    "nested": (Accelerator.KVM, Accelerator.TCG),
    "gicv2": tuple(Accelerator),
    "iommu": tuple(Accelerator),
    "nbd": tuple(Accelerator),
    "functions": (Accelerator.KVM,),
    "wide": (Accelerator.KVM, Accelerator.TCG),
}
"""What a machine is like, and the accelerators that it is made for."""


@dataclass(frozen=True)
class Case:
    """One golden."""

    version: str
    accelerator: Accelerator
    firmware: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.version}-{self.accelerator.value}-{self.firmware}-{self.shape}"

    @property
    def config(self) -> MachineConfig:
        return shaped(self.shape, uefi=self.firmware == "uefi")

    def argv(self) -> tuple[str, ...]:
        platform = Platform(
            architecture("aarch64"),
            abilities(self.version),
            self.accelerator,
            FirmwareFiles(ROOT / "firmware/code.fd", ROOT / "firmware/vars.fd"),
            Kvm(present=True, gic_version=2, nested=True) if self.shape in ("nested", "gicv2") else Kvm(present=True),
            host_cpus=4,
        )
        return command_line(self.config, platform, PATHS, Start("0123abcd", SOCKETS), layers()).argv


def cases() -> list[Case]:
    return [
        Case(version, accelerator, firmware, shape)
        for version, firmware, (shape, accelerators) in itertools.product(VERSIONS, ("uefi", "kernel"), SHAPES.items())
        for accelerator in accelerators
    ]


def shaped(shape: str, *, uefi: bool = False) -> MachineConfig:
    """The machine of a shape: that of a disk bus, or one with something about its CPUs or memory."""
    if shape in tuple(DiskBus):
        return machine(DiskBus(shape), uefi=uefi)
    config = machine(uefi=uefi)
    small = replace(config, memory_bytes=64 * MIB)
    match shape:
        case "numa":
            return replace(config, numa=nodes(384 * MIB, 128 * MIB))
        case "bound":
            return replace(config, numa=(GuestNodeConfig((0, 1, 2, 3), config.memory_bytes, (10,), host_node=1),))
        case "hugepages":
            return replace(small, page_bytes=2 * MIB)
        case "numa-hugepages":
            return replace(small, page_bytes=2 * MIB, numa=nodes(32 * MIB, 32 * MIB))
        case "nested":
            return replace(config, cpu=replace(config.cpu, nested=True))
        case "iommu":
            second = NicConfig("b", "52:54:00:12:34:57", {"type": "user"})
            return replace(config, iommu=True, nics=(*config.nics, second))
        case "nbd":
            return replace(config, disks=(*config.disks, NBD_DISK))
        case "functions":
            nic = NicConfig("b", "52:54:00:12:34:57", {}, function="0000:01:00.1")
            return replace(
                config, nics=(*config.nics, nic), disks=(*config.disks, FunctionDiskConfig("drive", "0000:02:00.0"))
            )
        case "gicv2":
            return replace(config, cpu=replace(config.cpu, gic_version=2))
        case _:
            return replace(config, cpu=CpuConfig(count=32, sockets=2, clusters=8, cores=2, threads=1))


def nodes(first: int, second: int) -> tuple[GuestNodeConfig, ...]:
    """Two, whose vCPUs lie in turns and whose distances differ by direction, on host nodes in another order."""
    return (
        GuestNodeConfig((0, 3), first, (10, 20), host_node=1),
        GuestNodeConfig((1, 2), second, (21, 10), host_node=0),
    )


def machine(bus: DiskBus = DiskBus.VIRTIO, *, uefi: bool = False) -> MachineConfig:
    """Two disks, of which one stands on a base image, a CD-ROM, a NIC, and commas where they hurt."""
    kernel = KernelFirmware(ROOT / "images/kernel", ROOT / "images/initrd", "console=ttyAMA0 key=a,b")
    return MachineConfig(
        uid=UID,
        name="web,spawn=allow",
        namespace="default",
        bios_uuid=UID,
        cpu=CpuConfig(count=4, sockets=1, clusters=2, cores=2, threads=1),
        memory_bytes=512 * 1024**2,
        firmware=UefiFirmware() if uefi else kernel,
        disks=(
            DiskConfig("root", bus, ROOT / "images/root.qcow2", "qcow2", "root"),
            DiskConfig("data", bus, ROOT / "images/data,ro.raw", "raw", "data"),
        ),
        cdroms=(ROOT / "images/cidata.iso",),
        nics=(NicConfig("a", "52:54:00:12:34:56", {"type": "user", "hostfwd": [{"str": "tcp:127.0.0.1:0-:22"}]}),),
    )


def layers() -> dict[str, list[Layer]]:
    return {
        "root": [Layer(ROOT / "images/root.qcow2", "qcow2", direct=True), Layer(ROOT / "images/base.qcow2", "qcow2")],
        "data": [Layer(ROOT / "images/data,ro.raw", "raw")],
    }


def with_model(config: MachineConfig, model: str) -> MachineConfig:
    return replace(config, cpu=replace(config.cpu, model=model))


def as_text(argv: tuple[str, ...]) -> str:
    """One option a line."""
    return "\n".join([argv[0], *_options(argv[1:])]) + "\n"


def as_argv(text: str) -> list[str]:
    """What ``as_text`` was made of."""
    first, *lines = text.splitlines()
    return [first, *(word for line in lines for word in line.split(" ", 1))]


def _options(words: tuple[str, ...]) -> Iterator[str]:
    index = 0
    while index < len(words):
        takes_value = index + 1 < len(words) and not words[index + 1].startswith("-")
        yield " ".join(words[index : index + 2]) if takes_value else words[index]
        index += 2 if takes_value else 1
