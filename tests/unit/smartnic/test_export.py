"""What an exporter is started with, and how it is known again."""

from __future__ import annotations

import json
from pathlib import Path

from carmel.paths import Paths
from carmel.smartnic.nvme.export import (
    Export,
    Listen,
    below,
    export_arguments,
    export_device,
    export_name,
    same_export,
    same_limits,
    throttle,
)
from carmel.smartnic.nvme.functions import Limits

PATHS = Paths(Path("/var/lib/carmel"), Path("/run/carmel"), Path("/var/cache/carmel"))
EXPORT = Export("pf0nvme0", Path("/dev/nvme1n1"), Listen("192.0.2.1", 10809))
NONE = Limits()
BINARY = Path("/usr/bin/qemu-storage-daemon")


def arguments(export: Export = EXPORT, limits: Limits = NONE, uid: str = "one") -> tuple[str, ...]:
    return export_arguments(BINARY, export, PATHS.export(uid), limits)


def test_the_whole_command_line() -> None:
    """It is also started, in tests/system/smartnic."""
    runtime = PATHS.export("one").runtime
    words = arguments(limits=Limits(iops=500, write_bytes=10_000_000))
    assert words[:5] == (str(BINARY), "--chardev", f"socket,id=qmp,path={runtime}/qmp,server=on,wait=off", "--monitor",
                         "chardev=qmp,mode=control")  # fmt: skip
    assert [json.loads(word) for word in words if word.startswith("{")] == [
        {"qom-type": "tls-creds-psk", "id": "tls", "endpoint": "server", "dir": f"{runtime}/keys"},
        {"qom-type": "throttle-group", "id": "limits",
         "limits": {"iops-total": 500, "bps-read": 0, "bps-write": 10_000_000}},
        {"driver": "host_device", "node-name": "device", "filename": "/dev/nvme1n1", "cache": {"direct": True},
         "aio": "native", "discard": "unmap", "locking": "on"},
        {"driver": "throttle", "node-name": "limited", "throttle-group": "limits", "file": "device"},
        {"addr": {"type": "inet", "host": "192.0.2.1", "port": "10809"}, "tls-creds": "tls"},
        {"type": "nbd", "id": "export", "node-name": "limited", "name": "pf0nvme0", "writable": True,
         "writethrough": True},
    ]  # fmt: skip


def test_a_process_is_known_by_what_it_was_started_with() -> None:
    words = arguments()
    assert below(words, PATHS.exports) == PATHS.export("one").runtime.name
    assert (export_name(words), export_device(words)) == ("pf0nvme0", "/dev/nvme1n1")
    assert below(words, Path("/run/another/nvme")) is None
    for foreign in ((), ("",), ("bash", *words[1:]), ("qemu-storage-daemon", "--object", "{broken", "[1]")):
        assert below(foreign, PATHS.exports) is None


def test_limits_alone_are_no_reason_to_start_anew() -> None:
    assert same_export(arguments(), arguments(limits=Limits(iops=5)))
    assert not same_export(arguments(), arguments(Export("pf0nvme0", Path("/dev/nvme2n1"), EXPORT.listen)))
    assert not same_export(arguments(), arguments(Export("pf0nvme1", EXPORT.device, EXPORT.listen)))
    assert not same_export(arguments(), arguments(uid="another"))
    assert not same_export(arguments()[:-1], arguments())


def test_limits_are_compared_with_what_qemu_says() -> None:
    said = {**throttle(Limits(iops=5)), "iops-total-max-length": 1}
    assert same_limits(said, Limits(iops=5))
    assert not same_limits(said, Limits(iops=5, read_bytes=1))
    assert not same_limits(said, NONE)
