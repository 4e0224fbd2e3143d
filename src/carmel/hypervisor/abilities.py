"""What a QEMU binary can do: asked from the binary itself, once, and remembered until the file changes.

One run of the empty machine (``-machine none``) answers everything over QMP in about 0.2 s. Versions are shown to
people and never compared: what Carmel needs is looked for by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmel.errors import Refused
from carmel.hypervisor.failures import QEMUFailed, QEMUNotAnswering, QEMUTooOld, QMPFailed
from carmel.hypervisor.files import write_atomically
from carmel.hypervisor.qmp import QmpConnection
from carmel.paths import Paths
from carmel.run import Command, Limits, Runner, find_program

_CACHE_FORMAT = 1
_ASKING_SECONDS = 30.0
_QUESTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "version": ("query-version", {}),
    "target": ("query-target", {}),
    "machines": ("query-machines", {}),
    "cpus": ("query-cpu-definitions", {}),
    "devices": ("qom-list-types", {"implements": "device", "abstract": False}),
    "accelerators": ("qom-list-types", {"implements": "accel", "abstract": False}),
    "options": ("query-command-line-options", {}),
    "schema": ("query-qmp-schema", {}),
}


@dataclass(frozen=True, slots=True)
class QemuAbilities:
    """One QEMU binary. ``machine_types`` maps a name to the most vCPUs it takes, ``options`` a command line option
    to its known parameters."""

    binary: Path
    version: str
    target: str
    machine_types: Mapping[str, int]
    cpu_models: frozenset[str]
    devices: frozenset[str]
    accelerators: frozenset[str]
    netdevs: frozenset[str]
    options: Mapping[str, frozenset[str]]

    def lacks(self) -> list[str]:
        """What Carmel cannot do without and this binary has not."""
        missing = []
        if "action" not in self.options:
            missing.append("-action")
        # A connection to a helper like passt: the newest thing we need.
        if "stream" not in self.netdevs:
            missing.append("-netdev stream")
        return missing

    def to_json(self) -> dict[str, Any]:
        return {
            "binary": str(self.binary),
            "version": self.version,
            "target": self.target,
            "machine_types": dict(self.machine_types),
            "cpu_models": sorted(self.cpu_models),
            "devices": sorted(self.devices),
            "accelerators": sorted(self.accelerators),
            "netdevs": sorted(self.netdevs),
            "options": {name: sorted(parameters) for name, parameters in self.options.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QemuAbilities:
        return cls(
            binary=Path(data["binary"]),
            version=data["version"],
            target=data["target"],
            machine_types=data["machine_types"],
            cpu_models=frozenset(data["cpu_models"]),
            devices=frozenset(data["devices"]),
            accelerators=frozenset(data["accelerators"]),
            netdevs=frozenset(data["netdevs"]),
            options={name: frozenset(parameters) for name, parameters in data["options"].items()},
        )


async def find_abilities(architecture: str, paths: Paths, runner: Runner, binary: Path | None = None) -> QemuAbilities:
    """The abilities of the installed ``qemu-system-ARCHITECTURE``, or of ``binary``.

    Raises ``Refused`` (``ProgramMissing``), ``QEMUTooOld`` or ``QEMUFailed``.
    """
    name = f"qemu-system-{architecture}"
    found = binary or find_program(name)
    if found is None or not found.exists():
        raise Refused(
            f"{name} is not installed",
            code="ProgramMissing",
            hint="install it: apt install qemu-system-arm (Debian, Ubuntu), brew install qemu (macOS)",
        )
    return await _ask_or_remember(found, paths, runner)


async def _ask_or_remember(binary: Path, paths: Paths, runner: Runner) -> QemuAbilities:
    stat = await asyncio.to_thread(binary.stat)
    key = hashlib.sha256(f"{_CACHE_FORMAT}:{binary}:{stat.st_mtime_ns}:{stat.st_size}".encode()).hexdigest()[:20]
    cached = paths.qemu_abilities / f"{key}.json"
    try:
        abilities = QemuAbilities.from_json(json.loads(await asyncio.to_thread(cached.read_bytes)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        abilities = await ask(binary, runner)
        await asyncio.to_thread(_remember, cached, abilities)
    missing = abilities.lacks()
    if missing:
        raise QEMUTooOld(
            f"{binary} is QEMU {abilities.version}, which lacks {', '.join(missing)}",
            hint="Carmel needs QEMU 7.2 or newer",
        )
    return abilities


def _remember(cached: Path, abilities: QemuAbilities) -> None:
    # A cache that cannot be written (a full disk) costs a question the next time, and no more.
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached, json.dumps(abilities.to_json()).encode())


async def ask(binary: Path, runner: Runner) -> QemuAbilities:
    """Run ``binary`` once and ask. Raises ``QEMUFailed``."""
    ours, its = socket.socketpair()
    with ours, its:
        running = asyncio.create_task(runner.run(_empty_machine(binary, its.fileno()), check=False))
        asking = asyncio.create_task(_ask_all(ours))
        try:
            await asyncio.wait({running, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                words = running.result().last_words.splitlines()
                raise _unanswered(binary, words[-1] if words else "it said nothing")
            return _read(binary, asking.result())
        except (ValueError, KeyError, TypeError, QEMUNotAnswering) as exc:
            raise _unanswered(binary, repr(exc)) from exc
        finally:
            # The runner ends what it started.
            for task in (running, asking):
                task.cancel()
            await asyncio.gather(running, asking, return_exceptions=True)


def _empty_machine(binary: Path, monitor: int) -> Command:
    words = "-machine none -no-user-config -nodefaults -display none -S -mon chardev=qmp,mode=control"
    argv: list[str | Path] = [binary, *words.split(), "-chardev", f"socket,id=qmp,fd={monitor}"]
    return Command(argv, limits=Limits(seconds=_ASKING_SECONDS), pass_fds=(monitor,))


async def _ask_all(monitor: socket.socket) -> dict[str, Any]:
    qmp = QmpConnection("abilities", lambda _event: None, lambda: None)
    answers: dict[str, Any] = {}
    try:
        await qmp.connect(monitor, seconds=_ASKING_SECONDS)
        for key, (command, arguments) in _QUESTIONS.items():
            # Not every target knows every command: query-cpu-definitions.
            with contextlib.suppress(QMPFailed):
                answers[key] = await qmp.execute(command, arguments, seconds=_ASKING_SECONDS)
    finally:
        await qmp.close()
    return answers


def _unanswered(binary: Path, why: str) -> QEMUFailed:
    return QEMUFailed(
        f"{binary} did not say what it can do: {why}",
        hint="does it start by hand? carmel doctor shows what Carmel found",
    )


def _read(binary: Path, answers: Mapping[str, Any]) -> QemuAbilities:
    version = answers["version"]
    number = version["qemu"]
    package = version.get("package") or ""
    accelerators = (entry["name"] for entry in answers["accelerators"])
    return QemuAbilities(
        binary=binary,
        version=f"{number['major']}.{number['minor']}.{number['micro']}" + (f" ({package})" if package else ""),
        target=answers["target"]["arch"],
        machine_types={entry["name"]: entry["cpu-max"] for entry in answers["machines"]},
        cpu_models=frozenset(entry["name"] for entry in answers.get("cpus", ())),
        devices=frozenset(entry["name"] for entry in answers["devices"]),
        accelerators=frozenset(name.removesuffix("-accel") for name in accelerators if name.endswith("-accel")),
        netdevs=_netdevs(answers["schema"]),
        options={
            entry["option"]: frozenset(parameter["name"] for parameter in entry["parameters"])
            for entry in answers["options"]
        },
    )


def _netdevs(schema: list[dict[str, Any]]) -> frozenset[str]:
    """The network back ends: the variants of what ``netdev_add`` takes."""
    entries = {entry["name"]: entry for entry in schema}
    argument = entries[entries["netdev_add"]["arg-type"]]
    return frozenset(variant["case"] for variant in argument["variants"])
