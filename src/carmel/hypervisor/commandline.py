"""QEMU's command line: a pure function of what is wanted and what is there.

Every option is explicit and nothing comes from a default or a user's file. Where QEMU takes JSON it gets JSON, so
that no file name or password can turn into another option; in the key=value options commas are doubled (QEMU's
``QemuOpts`` syntax).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor import guestmemory
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.arch import Architecture
from carmel.hypervisor.blockdevices import disk_arguments
from carmel.hypervisor.config import Accelerator, KernelFirmware, MachineConfig, UefiFirmware
from carmel.hypervisor.devices import (
    Device,
    DeviceKind,
    check_functions,
    hot_plug_port,
    nic_options,
    nic_port,
    port_options,
)
from carmel.hypervisor.firmware import FirmwareFiles
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.slots import Slots, hot_plug_ports
from carmel.paths import MachinePaths

AGENT_PORT = "org.qemu.guest_agent.0"
_NO_KVM = Kvm(present=False)
_CROWD = 4
"""More emulated vCPUs than this for each host CPU share one thread. Each with a thread of its own, they wait for each
other's turn at what must be exclusive, while the threads that hold it are not running: a guest of 16 on 2 CPUs booted
twice as fast in one thread. Fewer gain more by running side by side."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What VMs run on: one QEMU, one accelerator, one guest architecture. ``host_cpus`` counts the CPUs to run on."""

    architecture: Architecture
    qemu: QemuAbilities
    accelerator: Accelerator
    firmware: FirmwareFiles | None
    kvm: Kvm = _NO_KVM
    host_cpus: int = 1


@dataclass(frozen=True, slots=True)
class Sockets:
    """File descriptors of listening Unix sockets, open in QEMU under these numbers."""

    qmp: int
    serial: int
    agent: int


@dataclass(frozen=True, slots=True)
class Start:
    """How this one start differs from others. ``incoming``: wait for saved state."""

    launch_id: str
    sockets: Sockets
    paused: bool = False
    incoming: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """``argv`` and the decisions in it that people want to see. ``devices``: what it has of NICs and disks."""

    argv: tuple[str, ...]
    machine_type: str
    cpu_model: str
    devices: tuple[Device, ...] = ()


def option(value: str) -> str:
    """A value of a key=value option."""
    return value.replace(",", ",,")


def as_json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def command_line(
    config: MachineConfig,
    platform: Platform,
    paths: MachinePaths,
    start: Start,
    layers: Mapping[str, Sequence[Layer]],
) -> CommandLine:
    """What to run. ``layers`` are each disk's files, by its name.

    Raises ``Refused`` for what this QEMU or this architecture cannot do.
    """
    guestmemory.check(config)
    arch, qemu = platform.architecture, platform.qemu
    machine_type = arch.machine_type(qemu)
    most = qemu.machine_types[machine_type]
    if config.cpu.count > most:
        raise Refused(f"{machine_type} takes at most {most} vCPUs", code="TooManyCPUs", field="spec.cpu.count")
    cpu_model = arch.cpu_model(config, qemu, platform.accelerator)
    check_functions(config, qemu)
    slots = Slots(iommu=config.iommu)
    nic_words, nics = _nics(config, slots)
    disk_words, disks = disk_arguments(config, layers, paths, slots)
    argv = [
        str(qemu.binary),
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        *_identity(config, start),
        *_machine(config, platform, machine_type, cpu_model),
        *_firmware(config, platform, paths),
        *_policies(qemu),
        *_channels(paths, start, slots),
        *_random_and_panic(qemu, slots),
        *nic_words,
        *disk_words,
        *_hot_plug_ports(slots, config),
        *(["-S"] if start.paused or start.incoming else []),
        *(["-incoming", "defer"] if start.incoming else []),
    ]
    return CommandLine(tuple(argv), machine_type, cpu_model, (*nics, *disks))


def _identity(config: MachineConfig, start: Start) -> list[str]:
    # The launch id is how a process is known to be ours, in its arguments and over QMP (query-name).
    name = f"{config.namespace}/{config.name}/{start.launch_id}"
    return ["-name", f"guest={option(name)},debug-threads=on", "-uuid", config.bios_uuid]


def _machine(config: MachineConfig, platform: Platform, machine_type: str, cpu_model: str) -> list[str]:
    arch = platform.architecture
    options = {
        **arch.machine_options(config, platform.accelerator, platform.kvm),
        **(arch.iommu_options(platform.qemu) if config.iommu else {}),
    }
    topology = arch.topology(config)
    return [
        "-machine",
        ",".join([machine_type, *(f"{key}={value}" for key, value in options.items())]),
        "-accel",
        _accelerator(config, platform),
        "-cpu",
        cpu_model,
        "-smp",
        ",".join([f"cpus={config.cpu.count}", *(f"{level}={count}" for level, count in topology.items())]),
        *guestmemory.memory_arguments(config, arch.ram_id),
    ]


def _accelerator(config: MachineConfig, platform: Platform) -> str:
    if platform.accelerator is not Accelerator.TCG:
        return platform.accelerator.value
    crowded = config.cpu.count > _CROWD * platform.host_cpus
    # A thread for each vCPU is what "dedicated" means, emulated or not.
    alone = config.pinning is not None and config.pinning.exclusive
    return f"tcg,thread={'single' if crowded and not alone else 'multi'}"


def _firmware(config: MachineConfig, platform: Platform, paths: MachinePaths) -> list[str]:
    firmware = config.firmware
    if isinstance(firmware, KernelFirmware):
        initrd = ["-initrd", str(firmware.initrd)] if firmware.initrd is not None else []
        return ["-kernel", str(firmware.kernel), *initrd, "-append", firmware.command_line]
    assert isinstance(firmware, UefiFirmware)
    if platform.firmware is None:
        raise Refused(
            f"there is no UEFI firmware for {platform.qemu.target} guests on this host",
            code="NoFirmware",
            hint="install it: apt install qemu-efi-aarch64 (Debian, Ubuntu); Homebrew's qemu brings it",
        )
    flashes: list[tuple[str, Path, bool]] = [
        ("flash0", platform.firmware.code, True),
        ("flash1", paths.nvram, False),
    ]
    words = []
    for node, path, read_only in flashes:
        file = {"driver": "file", "filename": str(path), "locking": "on"}
        words += ["-blockdev", as_json({"driver": "raw", "node-name": node, "read-only": read_only, "file": file})]
    return [*words, "-machine", "pflash0=flash0,pflash1=flash1"]


def _policies(qemu: QemuAbilities) -> list[str]:
    words = [
        # A guest that ends, or panics, leaves QEMU waiting, so that it can still be asked why.
        "-action",
        "shutdown=pause,panic=pause",
        "-rtc",
        "base=utc",
        "-msg",
        "timestamp=on",
    ]
    if "sandbox" in qemu.options:
        denied = ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
        words += ["-sandbox", ",".join(["on", *(f"{what}=deny" for what in denied)])]
    return words


def _channels(paths: MachinePaths, start: Start, slots: Slots) -> list[str]:
    """Monitor, serial console with its log, and the guest agent's channel."""
    sockets = start.sockets
    log = f"logfile={option(str(paths.serial_log))},logappend=on"
    return [
        "-chardev",
        f"socket,id=qmp,fd={sockets.qmp},server=on,wait=off",
        "-mon",
        "chardev=qmp,mode=control",
        "-chardev",
        f"socket,id=serial0,fd={sockets.serial},server=on,wait=off,{log}",
        "-serial",
        "chardev:serial0",
        "-chardev",
        f"socket,id=agent0,fd={sockets.agent},server=on,wait=off",
        "-device",
        as_json({"driver": "virtio-serial-pci", "id": "channels", **slots.fixed("channels")}),
        "-device",
        as_json(
            {
                "driver": "virtserialport",
                "id": "agent",
                "bus": "channels.0",
                "nr": 1,
                "chardev": "agent0",
                "name": AGENT_PORT,
            }
        ),
    ]


def _random_and_panic(qemu: QemuAbilities, slots: Slots) -> list[str]:
    words = [
        "-object",
        as_json({"qom-type": "rng-random", "id": "random0", "filename": "/dev/urandom"}),
        "-device",
        as_json({"driver": "virtio-rng-pci", "id": "rng", "rng": "random0", **slots.fixed("rng")}),
    ]
    if "pvpanic-pci" in qemu.devices:
        words += ["-device", as_json({"driver": "pvpanic-pci", "id": "panic", **slots.fixed("panic")})]
    return words


def _nics(config: MachineConfig, slots: Slots) -> tuple[list[str], list[Device]]:
    words, devices = [], []
    for index, nic in enumerate(config.nics):
        # Behind a port of its own it is a group of its own to the guest's IOMMU, and can be unplugged.
        alone = config.iommu or nic.function is not None
        device = Device(
            kind=DeviceKind.NIC,
            name=nic.name,
            id=f"nic{index}",
            port=nic_port(index) if alone else None,
            netdev=f"net{index}" if nic.function is None else None,
            function=nic.function,
        )
        devices.append(device)
        if device.netdev is not None:
            words += ["-netdev", as_json({**nic.netdev, "id": device.netdev})]
        place = slots.nic(index)
        if device.port is not None:
            words += ["-device", as_json(port_options(device.port, place, bare=config.iommu))]
            place = {"bus": device.port}
        words += ["-device", as_json(nic_options(nic, device, place, iommu=config.iommu))]
    return words, devices


def _hot_plug_ports(slots: Slots, config: MachineConfig) -> list[str]:
    """Devices on the root bus cannot be plugged while the guest runs: these ports wait for them."""
    words = []
    for index in range(hot_plug_ports(iommu=config.iommu)):
        options = port_options(hot_plug_port(index), slots.port(index), bare=config.iommu)
        words += ["-device", as_json(options)]
    return words
