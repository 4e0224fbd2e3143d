"""The launch record: what is known of one start of one VM, on disk before QEMU is.

``launch.json`` is written and made durable before anything is started, and again with the pids once they are known.
In between a process is found by its arguments, which hold the launch id. Adoption reads the record and computes
nothing anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from carmel.errors import CarmelError
from carmel.hypervisor.config import Accelerator, Pinning
from carmel.hypervisor.devices import Device, DeviceKind, NbdServer
from carmel.hypervisor.files import write_atomically
from carmel.hypervisor.machine import Launch

_FORMAT = 1


class BadRecord(CarmelError):
    """A launch record that cannot be read."""

    reason = "BadLaunchRecord"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process beyond doubt: pids are used again, a pid with its start time (``processes``) is not."""

    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class HelperRecord:
    """A process that was started for the VM before QEMU."""

    name: str
    argv: tuple[str, ...]
    process: ProcessId | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why Carmel was about to end this run: written before it is done."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """One start. ``boot_id`` is the host's: after a reboot no process of the record can be there."""

    uid: str
    launch_id: str
    argv: tuple[str, ...]
    machine_type: str
    accelerator: Accelerator
    cpu_model: str
    started_at: datetime
    boot_id: str
    process: ProcessId | None = None
    helpers: tuple[HelperRecord, ...] = ()
    ending: Ending | None = None
    log_offset: int = 0
    """Where this run's words begin in ``qemu.log``."""
    pinning: Pinning | None = None
    devices: tuple[Device, ...] | None = None
    """The NICs and disks that it has. ``None``: it was started before they were recorded, and none can be unplugged."""
    started_with: tuple[str, ...] = ()
    """The ids of the devices that it was started with."""
    iommu: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """Ports that a device can be plugged into, by QEMU's names, those for plugging later first."""
        options = (json.loads(word) for word in self.argv if word.startswith('{"driver":"pcie-root-port"'))
        names = [str(one["id"]) for one in options]
        return tuple(sorted(names, key=lambda name: not name.startswith("port")))

    @property
    def devices_as_started(self) -> bool:
        """Whether it has the very devices that its arguments name."""
        present = {device.id for device in self.devices or ()}
        return self.devices is None or present == set(self.started_with)

    @property
    def functions(self) -> tuple[str, ...]:
        """PCI addresses of the host's functions that it has."""
        return tuple(device.function for device in self.devices or () if device.function is not None)

    def to_launch(self) -> Launch:
        return Launch(
            launch_id=self.launch_id,
            uid=self.uid,
            pid=self.process.pid if self.process else 0,
            machine_type=self.machine_type,
            accelerator=self.accelerator,
            cpu_model=self.cpu_model,
            started_at=self.started_at,
        )

    def with_ending(self, reason: str, message: str) -> LaunchRecord:
        return replace(self, ending=Ending(reason, message))

    def save(self, path: Path) -> None:
        """Make it durable."""
        data = {"format": _FORMAT, **asdict(self), "started_at": self.started_at.isoformat()}
        write_atomically(path, json.dumps(data, indent=1).encode())

    @classmethod
    def load(cls, path: Path, *, uid: str) -> LaunchRecord:
        """The record of VM ``uid``. Raises ``BadRecord``, or ``FileNotFoundError``."""
        try:
            return _parse(json.loads(path.read_bytes()), uid)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BadRecord(f"the launch record {path} cannot be read: {exc!r}") from exc


def _parse(data: Mapping[str, Any], uid: str) -> LaunchRecord:
    if data["uid"] != uid:
        raise ValueError(f"it is that of another VM, {data['uid']!r}")
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']!r} is not {_FORMAT}")
    ending = data["ending"]
    started_at = datetime.fromisoformat(data["started_at"])
    if started_at.tzinfo is None:
        raise ValueError("started_at has no time zone")
    return LaunchRecord(
        uid=uid,
        launch_id=str(data["launch_id"]),
        argv=tuple(map(str, data["argv"])),
        machine_type=str(data["machine_type"]),
        accelerator=Accelerator(data["accelerator"]),
        cpu_model=str(data["cpu_model"]),
        started_at=started_at,
        boot_id=str(data["boot_id"]),
        process=_process(data["process"]),
        helpers=tuple(
            HelperRecord(str(helper["name"]), tuple(map(str, helper["argv"])), _process(helper["process"]))
            for helper in data["helpers"]
        ),
        ending=Ending(str(ending["reason"]), str(ending["message"])) if ending else None,
        log_offset=int(data["log_offset"]),
        # Older records have none of these.
        pinning=_pinning(data.get("pinning")),
        devices=_devices(data.get("devices")),
        started_with=tuple(map(str, data.get("started_with", ()))),
        iommu=bool(data.get("iommu", False)),
    )


def _devices(data: Sequence[Mapping[str, Any]] | None) -> tuple[Device, ...] | None:
    if data is None:
        return None
    return tuple(
        Device(
            kind=DeviceKind(one["kind"]),
            name=str(one["name"]),
            id=str(one["id"]),
            port=_text(one["port"]),
            netdev=_text(one["netdev"]),
            nodes=tuple(map(str, one["nodes"])),
            objects=tuple(map(str, one["objects"])),
            function=_text(one["function"]),
            # Older records do not have it.
            server=NbdServer(**one["server"]) if one.get("server") else None,
            plugged=bool(one["plugged"]),
        )
        for one in data
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _pinning(data: Mapping[str, Any] | None) -> Pinning | None:
    if data is None:
        return None
    return Pinning(
        vcpus=tuple(tuple(map(int, cpus)) for cpus in data["vcpus"]),
        emulator=tuple(map(int, data["emulator"])),
        memory_nodes=tuple(map(int, data["memory_nodes"])),
        exclusive=bool(data["exclusive"]),
    )


def _process(data: Mapping[str, Any] | None) -> ProcessId | None:
    return ProcessId(int(data["pid"]), str(data["started"])) if data else None
