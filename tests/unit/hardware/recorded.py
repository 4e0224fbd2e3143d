"""The recorded dual-socket Arm server."""

from __future__ import annotations

import tarfile
from pathlib import Path

MACHINES = Path(__file__).parents[2] / "data" / "machines"
NAME = "128arm-2pa2n8cluster4co"


def unpack(folder: Path) -> Path:
    """Its root below ``folder``. The filter refuses whatever would land elsewhere (PEP 706)."""
    with tarfile.open(MACHINES / f"{NAME}.tar.bz2", "r:bz2") as archive:
        archive.extractall(folder, filter="data")
    return folder / NAME


def hwlocs_reading() -> str:
    return (MACHINES / f"{NAME}.console").read_text("utf-8")
