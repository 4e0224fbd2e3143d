"""The machines of the golden command lines: every accelerator, firmware, bus and recorded QEMU.

Paths begin with /golden, so that the system tests can put real files in their places.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.commandline import Platform, Sockets, Start, command_line
from carmel.hypervisor.config import (
    Accelerator,
    CpuConfig,
    DiskConfig,
    KernelFirmware,
    MachineConfig,
    NicConfig,
    UefiFirmware,
)
from carmel.hypervisor.firmware import FirmwareFiles
from carmel.hypervisor.layers import Layer
from carmel.paths import MachinePaths
from carmel.resources.virtualmachine import DiskBus

HERE = Path(__file__).parent
ROOT = Path("/golden")
SOCKETS = Sockets(qmp=101, serial=102, agent=103)
PATHS = MachinePaths(state=ROOT / "state", runtime=ROOT / "run")
VERSIONS = ("7.2", "10.0")
UID = "3b241101-e2bb-4255-8caf-4136c566a962"


def abilities(version: str) -> QemuAbilities:
    """What a real binary of this version said, once."""
    return QemuAbilities.from_json(json.loads((HERE / "abilities" / f"qemu-{version}.json").read_text()))


@dataclass(frozen=True)
class Case:
    """One golden."""

    version: str
    accelerator: Accelerator
    firmware: str
    bus: DiskBus

    @property
    def name(self) -> str:
        return f"{self.version}-{self.accelerator.value}-{self.firmware}-{self.bus.value}"

    def argv(self) -> tuple[str, ...]:
        config = machine(self.bus, uefi=self.firmware == "uefi")
        platform = Platform(
            architecture("aarch64"),
            abilities(self.version),
            self.accelerator,
            FirmwareFiles(ROOT / "firmware/code.fd", ROOT / "firmware/vars.fd"),
        )
        return command_line(config, platform, PATHS, Start("0123abcd", SOCKETS), layers()).argv


def cases() -> list[Case]:
    combinations = itertools.product(VERSIONS, Accelerator, ("uefi", "kernel"), DiskBus)
    return [Case(*each) for each in combinations]


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
        "root": [Layer(ROOT / "images/root.qcow2", "qcow2"), Layer(ROOT / "images/base.qcow2", "qcow2")],
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
