"""What this machine can do, and how to get the rest: asked of the machine itself, with or without a daemon.

QEMU, the firmware and the image builders are looked at by the very functions that will use them, so that the doctor
and the daemon cannot disagree.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from carmel.errors import CarmelError
from carmel.hardware.reader import read_hardware
from carmel.hypervisor.abilities import QemuAbilities, find_abilities
from carmel.hypervisor.accelerator import HostSystem, choose_accelerator
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.firmware import find_firmware
from carmel.network.passt_probe import find_fault
from carmel.paths import Paths
from carmel.run import Command, Limits, Runner, find_program
from carmel.storage.build import RECIPES
from carmel.storage.build.programs import PACKAGE_OF
from carmel.units import GIB, human_bytes

GUEST = "aarch64"
_LITTLE_SPACE = 5 * GIB


class State(StrEnum):
    """``missing`` keeps VMs from running; ``limited`` makes something slower, smaller or impossible."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do for more."""

    subject: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the doctor looks. ``root`` is in front of /proc, /sys and /run, for tests."""

    paths: Paths
    runner: Runner
    system: HostSystem
    root: Path = Path("/")

    def text(self, path: str) -> str:
        """A small file of the kernel's; empty when it is not there or may not be read."""
        try:
            return (self.root / path).read_text("utf-8", "replace").strip("\0 \n")
        except OSError:
            return ""


async def examine(machine: Machine) -> list[Finding]:
    """Everything, in the order in which people want to read it."""
    try:
        qemu = await find_abilities(GUEST, machine.paths, machine.runner)
        trouble = None
    except CarmelError as exc:
        qemu, trouble = None, exc
    linux = machine.system.system == "linux"
    return [
        _board(machine),
        *(_with_qemu(machine, qemu) if qemu else _without_qemu(trouble)),
        _program("Disk images", "qemu-img", "qemu-utils", "qemu", necessary=True),
        await _networking(machine, qemu),
        *([_cgroups(machine), _systemd(machine), await _user_namespaces(machine)] if linux else []),
        *_builders(machine),
        _ssh(),
        _space(machine.paths),
        _daemon(machine.paths),
    ]


def can_run_vms(findings: Iterable[Finding]) -> bool:
    return all(one.state is not State.MISSING for one in findings)


def install(apt: Iterable[str], brew: Iterable[str] = ()) -> str:
    """The command that brings these packages, for this machine's package manager."""
    by_apt, by_brew = " ".join(sorted(set(apt))), " ".join(sorted(set(brew)))
    if sys.platform == "darwin":
        return f"brew install {by_brew}" if by_brew else "not available on macOS"
    return f"sudo apt install {by_apt}"


def _board(machine: Machine) -> Finding:
    model = machine.text("proc/device-tree/model") or " ".join(
        part
        for part in (machine.text("sys/class/dmi/id/sys_vendor"), machine.text("sys/class/dmi/id/product_name"))
        if part
    )
    cpus, memory = os.cpu_count() or 1, _memory_bytes()
    found = f"{model or 'unknown board'}, {machine.system.machine}, {cpus} CPUs{_shape(machine)}, {human_bytes(memory)}"
    return Finding("Machine", State.OK, f"{found}, {platform.system()} {platform.release()}")


def _shape(machine: Machine) -> str:
    """Sockets and NUMA nodes, where there are several."""
    try:
        hardware = read_hardware(machine.root)
    except CarmelError:
        return ""
    counts = ((len(hardware.sockets), "sockets"), (len(hardware.nodes), "NUMA nodes"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count > 1)
    return f" ({said})" if said else ""


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _without_qemu(trouble: CarmelError | None) -> Iterator[Finding]:
    remedy = install(["qemu-system-arm", "qemu-efi-aarch64"], ["qemu"])
    yield Finding("QEMU", State.MISSING, trouble.message if trouble else "not found", remedy)


def _with_qemu(machine: Machine, qemu: QemuAbilities) -> Iterator[Finding]:
    lacking = [name for name, there in _wishes(qemu) if not there]
    yield Finding(
        "QEMU",
        State.LIMITED if lacking else State.OK,
        f"{qemu.version} ({qemu.binary})" + (f", without {', '.join(lacking)}" if lacking else ""),
        "a newer or fuller QEMU has them; Carmel works without" if lacking else "",
    )
    choice = choose_accelerator(qemu, machine.system)
    if choice.accelerator is Accelerator.TCG:
        native = machine.system.machine == qemu.target
        remedy = (
            "sudo usermod -aG kvm $USER, or load the kernel's kvm" if native else "a 64-bit Arm machine runs them fast"
        )
        yield Finding("Acceleration", State.LIMITED, f"TCG (emulation): {choice.why}", remedy)
    else:
        yield Finding("Acceleration", State.OK, choice.why)
    firmware = find_firmware(qemu.target, _newest_virt(qemu.machine_types))
    if firmware is None:
        remedy = install(["qemu-efi-aarch64"], ["qemu"])
        yield Finding("UEFI firmware", State.LIMITED, "none: only DirectKernel VMs (micro) start", remedy)
    else:
        yield Finding("UEFI firmware", State.OK, str(firmware.code))
    if machine.system.system == "linux":
        sandboxed = "sandbox" in qemu.options
        yield Finding(
            "QEMU sandbox",
            State.OK if sandboxed else State.LIMITED,
            "seccomp" if sandboxed else "this QEMU was built without seccomp",
            "" if sandboxed else "the distribution's own QEMU has it",
        )


def _wishes(qemu: QemuAbilities) -> list[tuple[str, bool]]:
    return [
        *(
            (device, device in qemu.devices)
            for device in ("virtio-blk-pci", "virtio-net-pci", "nvme", "virtio-scsi-pci")
        ),
        ("user networking (slirp)", "user" in qemu.netdevs),
    ]


def _newest_virt(machine_types: Iterable[str]) -> str:
    versions = [name.removeprefix("virt-") for name in machine_types if name.startswith("virt-")]
    numbers = [tuple(map(int, one.split("."))) for one in versions if one.replace(".", "").isdigit()]
    return "virt-" + ".".join(map(str, max(numbers))) if numbers else "virt"


def _program(subject: str, name: str, apt: str, brew: str, *, necessary: bool) -> Finding:
    found = find_program(name)
    if found:
        return Finding(subject, State.OK, str(found))
    return Finding(subject, State.MISSING if necessary else State.LIMITED, f"no {name}", install([apt], [brew]))


async def _networking(machine: Machine, qemu: QemuAbilities | None) -> Finding:
    linux = machine.system.system == "linux"
    passt = find_program("passt") if linux else None
    fault = None if passt is None else await find_fault(machine.runner, passt)
    if passt is not None and fault is None:
        return Finding("User networking", State.OK, f"passt ({passt})")
    if qemu is not None and "user" in qemu.netdevs:
        remedy = install(["passt"]) + " (faster)" if linux and passt is None else ""
        return Finding("User networking", State.OK, f"slirp, in QEMU ({fault})" if fault else "slirp, in QEMU", remedy)
    if fault is not None:
        return Finding("User networking", State.LIMITED, f"no slirp, and {fault}: VMs have no network")
    return Finding("User networking", State.LIMITED, "neither passt nor slirp: VMs have no network", install(["passt"]))


def _cgroups(machine: Machine) -> Finding:
    controllers = machine.text("sys/fs/cgroup/cgroup.controllers")
    if controllers:
        return Finding("cgroups", State.OK, f"v2: {controllers}")
    return Finding(
        "cgroups",
        State.LIMITED,
        "no cgroups v2: VMs have no limits of their own",
        "boot with systemd.unified_cgroup_hierarchy=1",
    )


def _systemd(machine: Machine) -> Finding:
    if (machine.root / "run/systemd/system").is_dir():
        return Finding("systemd", State.OK, "VMs get units of their own")
    return Finding("systemd", State.LIMITED, "not running: VMs are plain detached processes", "")


async def _user_namespaces(machine: Machine) -> Finding:
    """Tried, since half a dozen switches of as many distributions can forbid them."""
    try:
        argv = ("unshare", "--user", "--map-root-user", "true")
        result = await machine.runner.run(Command(argv, limits=Limits(seconds=10)), check=False)
    except CarmelError as exc:
        return Finding("User namespaces", State.LIMITED, exc.message, install(["util-linux"]))
    if result.status == 0:
        return Finding("User namespaces", State.OK, "images can be built without root")
    restricted = machine.text("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    switch = "kernel.apparmor_restrict_unprivileged_userns=0" if restricted else "kernel.unprivileged_userns_clone=1"
    return Finding(
        "User namespaces", State.LIMITED, "forbidden: images are built as root only", f"sudo sysctl -w {switch}"
    )


def _builders(machine: Machine) -> Iterator[Finding]:
    common = ("apt-get", "apt-config", "dpkg-deb")
    for recipe in RECIPES.values():
        emulator = () if machine.system.machine == GUEST or recipe.kind == "Kernel" else ("qemu-aarch64-static",)
        # Without root a file system of root's is made in a user namespace with many ids.
        mappers = () if os.geteuid() == 0 or recipe.kind == "Kernel" else ("newuidmap", "newgidmap")
        needed = (*common, *recipe.programs, *emulator, *mappers)
        missing = [name for name in needed if find_program(name) is None]
        yield _builder(recipe.name, missing, machine)


def _builder(name: str, missing: Sequence[str], machine: Machine) -> Finding:
    subject = f"Build of {name}"
    if not missing:
        return Finding(subject, State.OK, "all programs are there")
    if machine.system.system != "linux":
        return Finding(subject, State.LIMITED, "on Linux only", f"carmel image pull {name}, or import an image")
    packages = [PACKAGE_OF.get(program, program) for program in missing]
    return Finding(subject, State.LIMITED, f"lacks {', '.join(missing)}", install(packages))


def _ssh() -> Finding:
    missing = [name for name in ("ssh", "ssh-keygen") if find_program(name) is None]
    if missing:
        return Finding("ssh", State.LIMITED, f"lacks {', '.join(missing)}", install(["openssh-client"], ["openssh"]))
    return Finding("ssh", State.OK, str(find_program("ssh")))


def _space(paths: Paths) -> Finding:
    place = next(one for one in (paths.state, *paths.state.parents) if one.exists())
    free = shutil.disk_usage(place).free
    enough = free >= _LITTLE_SPACE
    return Finding(
        "Disk space",
        State.OK if enough else State.LIMITED,
        f"{human_bytes(free)} free at {paths.state}",
        "" if enough else "CARMEL_STATE_DIR can name a larger disk",
    )


def _daemon(paths: Paths) -> Finding:
    """Whether somebody listens. That is no fault: the doctor also works before the first start."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(paths.api_socket))
    except PermissionError:
        return Finding("Daemon", State.LIMITED, f"{paths.api_socket} is not yours to open", "use sudo")
    except OSError:
        remedy = "sudo systemctl start carmeld, or carmeld in a terminal"
        return Finding("Daemon", State.LIMITED, f"not running (no {paths.api_socket})", remedy)
    return Finding("Daemon", State.OK, str(paths.api_socket))


def examine_this_machine(runner: Runner) -> list[Finding]:
    """``examine`` for the machine and the user we are."""
    machine = Machine(Paths.from_environment(), runner, HostSystem.detect())
    return asyncio.run(examine(machine))
