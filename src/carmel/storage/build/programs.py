"""The programs that builders need, and the Debian package each comes in."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.errors import Refused
from carmel.run import find_program

PACKAGE_OF = {
    "apt-get": "apt",
    "apt-config": "apt",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "zstd": "zstd",
}


def require(names: Iterable[str]) -> None:
    """Raises ``Refused`` (code ``ProgramMissing``) that names every missing program and the packages to install."""
    missing = sorted({name for name in names if find_program(name) is None})
    if missing:
        packages = sorted({PACKAGE_OF.get(name, name) for name in missing})
        raise Refused(
            f"to build images this machine lacks {', '.join(missing)}",
            code="ProgramMissing",
            hint=f"install the package{'s' if len(packages) > 1 else ''} {' '.join(packages)} (apt-get install)",
        )
