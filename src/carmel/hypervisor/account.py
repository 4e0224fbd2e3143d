"""The account that QEMU runs under.

A daemon that is root starts QEMU as an own system user without any rights; a daemon of a user starts it as that
user. What QEMU must open is given to that account, nothing else: a VM that breaks out of QEMU finds neither the
daemon's sockets nor other VMs' monitors.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from carmel.errors import Refused

DEFAULT_USER = "carmel-qemu"
KVM_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Account:
    """``uid`` and ``gid`` are ``None`` when QEMU runs as the daemon's own user."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()

    @classmethod
    def for_daemon(cls, name: str = DEFAULT_USER) -> Account:
        """Raises ``Refused`` (``UserMissing``)."""
        if os.geteuid() != 0:
            return cls()
        try:
            entry = pwd.getpwnam(name)
        except KeyError as exc:
            raise Refused(
                f"the system user {name}, which QEMU runs as, does not exist",
                code="UserMissing",
                hint=f"create it: useradd --system --no-create-home --shell /usr/sbin/nologin {name}",
            ) from exc
        # Only with the group that owns /dev/kvm may it use KVM.
        groups = (KVM_DEVICE.stat().st_gid,) if KVM_DEVICE.exists() else ()
        return cls(entry.pw_uid, entry.pw_gid, tuple(gid for gid in groups if gid != 0))

    def joining(self, groups: Iterable[int]) -> Account:
        """The account in further groups. One that is the daemon's own stays as it is."""
        return self if self.uid is None else replace(self, groups=tuple(dict.fromkeys([*self.groups, *groups])))

    def give(self, path: Path) -> None:
        """Let QEMU write ``path``."""
        if self.uid is not None and self.gid is not None and path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)

    def show(self, path: Path) -> None:
        """Let QEMU read ``path`` (a base image, firmware, an ISO), which it shares with others and must not write."""
        if self.uid is None or self.gid is None:
            return
        stat = path.stat()
        if stat.st_mode & 0o004 or stat.st_uid == self.uid:
            return
        os.chown(path, -1, self.gid)
        path.chmod(stat.st_mode & 0o777 | 0o040)
