"""A namespace as an NBD export: what qemu-storage-daemon is started with (qemu-storage-daemon(1), pure).

One process an export: one that hangs for its blocks holds up nobody else. Its arguments hold all that it does but the
limits, which change while it runs; so they are its record, too, and an export of an earlier daemon is found by them.

``writethrough``: a write is answered when it is on the disk. The one who wrote stays when a NIC's power is cut, and
only waits; what it was told is written must be there when the NIC is back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.paths import ExportPaths
from carmel.smartnic.nvme.functions import Limits

PROGRAM = "qemu-storage-daemon"
LIMITS = "limits"
LIMITS_PATH = f"/objects/{LIMITS}"
"""Where QMP's qom-set finds them."""
_LIMITED = frozenset({"iops-total", "bps-read", "bps-write"})


@dataclass(frozen=True, slots=True)
class Listen:
    """Where an export is to be had."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Export:
    """``name``: what clients ask for. ``block_device``: else a file, in tests."""

    name: str
    device: Path
    listen: Listen
    block_device: bool = True


def export_arguments(binary: Path, export: Export, paths: ExportPaths, limits: Limits) -> tuple[str, ...]:
    """The whole command line."""
    server = {
        "addr": {"type": "inet", "host": export.listen.address, "port": str(export.listen.port)},
        "tls-creds": "tls",
    }
    device = {
        "driver": "host_device" if export.block_device else "file",
        "node-name": "device",
        "filename": str(export.device),
        # What the guest's own cache holds need not lie in the NIC's memory, too.
        "cache": {"direct": True},
        # Not by threads: requests that wait for a path would use them up.
        "aio": "native",
        "discard": "unmap",
        "locking": "on",
    }
    return (
        str(binary),
        "--chardev",
        f"socket,id=qmp,path={str(paths.qmp_socket).replace(',', ',,')},server=on,wait=off",
        "--monitor",
        "chardev=qmp,mode=control",
        "--object",
        _json({"qom-type": "tls-creds-psk", "id": "tls", "endpoint": "server", "dir": str(paths.keys)}),
        "--object",
        _json({"qom-type": "throttle-group", "id": LIMITS, "limits": throttle(limits)}),
        "--blockdev",
        _json(device),
        "--blockdev",
        _json({"driver": "throttle", "node-name": "limited", "throttle-group": LIMITS, "file": "device"}),
        "--nbd-server",
        _json(server),
        "--export",
        _json(
            {
                "type": "nbd",
                "id": "export",
                "node-name": "limited",
                "name": export.name,
                "writable": True,
                "writethrough": True,
            }
        ),
    )


def throttle(limits: Limits) -> dict[str, int]:
    """As ThrottleLimits has them (qapi/block-core.json): 0 is no limit."""
    return {
        "iops-total": limits.iops or 0,
        "bps-read": limits.read_bytes or 0,
        "bps-write": limits.write_bytes or 0,
    }


def same_limits(found: Mapping[str, int], limits: Limits) -> bool:
    """``found``: as QMP's qom-get answers, with defaults of bursts among them."""
    return {name: found.get(name) for name in _LIMITED} == throttle(limits)


def below(argv: Sequence[str], exports: Path) -> str | None:
    """The name of the directory below ``exports`` that an exporter's arguments name; ``None``: it is none of ours."""
    if not argv or Path(argv[0]).name != PROGRAM:
        return None
    for word in argv:
        folder = _parsed(word).get("dir")
        if isinstance(folder, str) and Path(folder).parent.parent == exports:
            return Path(folder).parent.name
    return None


def export_name(argv: Sequence[str]) -> str | None:
    """What clients ask for."""
    return _value(argv, "type", "nbd", "name")


def export_device(argv: Sequence[str]) -> str | None:
    return _value(argv, "node-name", "device", "filename")


def same_export(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether two command lines differ in their limits at most."""
    return [word for word in found if not _is_limits(word)] == [word for word in wanted if not _is_limits(word)]


def _is_limits(word: str) -> bool:
    return _parsed(word).get("qom-type") == "throttle-group"


def _value(argv: Sequence[str], key: str, value: str, wanted: str) -> str | None:
    """The string ``wanted`` of the option whose ``key`` is ``value``."""
    for word in argv:
        options = _parsed(word)
        if options.get(key) == value and isinstance(found := options.get(wanted), str):
            return found
    return None


def _parsed(word: str) -> Mapping[str, object]:
    if not word.startswith("{"):
        return {}
    try:
        value = json.loads(word)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))
