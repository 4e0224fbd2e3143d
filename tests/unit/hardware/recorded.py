"""Recorded machines: a real server, and emulated ones."""

from __future__ import annotations

import tarfile
from pathlib import Path

MACHINES = Path(__file__).parents[2] / "data" / "machines"
SERVER = "128arm-2pa2n8cluster4co"


def unpack(name: str, folder: Path) -> Path:
    """The machine's root below ``folder``. The filter refuses whatever would land elsewhere (PEP 706)."""
    (place,) = MACHINES.glob(f"{name}.tar.*")
    with tarfile.open(place) as archive:
        archive.extractall(folder, filter=_safe)
    return folder / name


def _safe(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """An absolute link (/proc/device-tree) means a file of the machine, and is made relative."""
    if member.issym() and member.linkname.startswith("/"):
        up = "../" * member.name.count("/")
        member = member.replace(linkname=f"{up[3:]}{member.linkname[1:]}", deep=False)
    return tarfile.data_filter(member, folder)


def hwlocs_reading() -> str:
    return (MACHINES / f"{SERVER}.console").read_text("utf-8")
