"""Documents that several boards cite, and short ways to cite a file of a public repository."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import Source


def linux(path: str, where: str) -> Source:
    """A file of Linux."""
    return _github("Linux", "torvalds/linux", path, where)


def edk2(path: str, where: str) -> Source:
    """A file of edk2-platforms, where UEFI for boards is kept."""
    return _github("edk2-platforms", "tianocore/edk2-platforms", path, where)


def csit(path: str, where: str) -> Source:
    """A file of FD.io CSIT, which documents its test machines by what Linux and dmidecode print on them."""
    return _github("FD.io CSIT", "FDio/csit", path, where)


def mail(message_id: str, subject: str, where: str) -> Source:
    """A message to the Linux kernel's mailing list, by its Message-ID."""
    return Source(f"Linux kernel mailing list, {subject!r}", where, f"https://lore.kernel.org/lkml/{message_id}/")


def _github(title: str, repository: str, path: str, where: str) -> Source:
    return Source(f"{title}, {path}", where, f"https://github.com/{repository}/blob/master/{path}")


CPUTYPE: Final = "arch/arm64/include/asm/cputype.h"


def midr_source(symbol: str) -> Source:
    """Linux's own list of MIDR values."""
    return linux(CPUTYPE, symbol)
