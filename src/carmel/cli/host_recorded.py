"""Machines that no daemon runs on, told as a host would tell of itself."""

from __future__ import annotations

from pathlib import Path

from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject
from carmel.errors import CarmelError, Refused
from carmel.hardware.model import Hardware
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from carmel.resources.host import HostResources, HostStatus, HostSystem
from carmel.units import format_bytes


def recorded_host(root: Path) -> JsonObject:
    """Raises ``Refused`` for a folder that is no machine."""
    return host_object(recorded_name(root), read_recorded(root))


def recorded_name(root: Path) -> str:
    return root.resolve().name or "machine"


def read_recorded(root: Path) -> Hardware:
    """A machine from its recorded ``/sys`` and ``/proc``. Raises ``Refused`` for a folder that is none."""
    try:
        return read_hardware(root)
    except CarmelError as exc:
        raise Refused(f"{root} is no machine: {exc.message}", code=exc.code, hint=exc.hint) from exc


def host_object(name: str, hardware: Hardware) -> JsonObject:
    """A Host as the API has it, with what is known of the silicon alone."""
    told = hardware_status(hardware)
    status = HostStatus(
        system=HostSystem(
            architecture=hardware.architecture,
            board=told.board.name or told.board.product,
            cpu_model=", ".join(dict.fromkeys(kind.name for kind in hardware.cpu_kinds)) or None,
            page_size_bytes=hardware.page_bytes,
        ),
        capacity=HostResources(cpus=len(hardware.cpus), memory=format_bytes(hardware.memory_bytes)),
        hardware=told,
    )
    return {"apiVersion": CARMEL_API, "kind": "Host", "metadata": {"name": name}, "status": status.to_json()}
