"""What makes an installed Debian a Carmel host: our files in their places, units, the account QEMU runs as."""

from __future__ import annotations

import shutil
from pathlib import Path

from carmel.storage.build.payload import PREFIX

# Our files and where they go.
FILES = {
    "host_guest/carmeld.service": "usr/lib/systemd/system/carmeld.service",
    "host_guest/carmel-firstboot.service": "usr/lib/systemd/system/carmel-firstboot.service",
    "host_guest/carmel-status.service": "usr/lib/systemd/system/carmel-status.service",
    "host_guest/50-root.conf": "etc/repart.d/50-root.conf",
    "host_guest/99-dhcp.network": "etc/systemd/network/99-dhcp.network",
    "host_guest/journald.conf": "etc/systemd/journald.conf.d/carmel.conf",
    "host_guest/resolved.conf": "etc/systemd/resolved.conf.d/carmel.conf",
    "host_guest/carmel-seed.service": "usr/lib/systemd/system/carmel-seed.service",
    "host_guest/seed": "usr/lib/carmel-seed",
    "host_guest/sshd.conf": "etc/ssh/sshd_config.d/carmel.conf",
    "host_guest/wait-online.conf": "etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf",
}
ENABLED = ("carmeld.service", "carmel-firstboot.service", "carmel-seed.service", "carmel-status.service")
MASKED = (
    # NFS 4 needs neither; both open ports to everybody.
    "rpcbind.service", "rpcbind.socket", "rpc-statd.service",
    # Tools of the image, not services of every host.
    "nfs-server.service", "nfs-blkmap.service", "rpc-statd-notify.service", "nvmf-autoconnect.service",
    "nvmefc-boot-connections.service", "uuidd.socket", "e2scrub_reap.service", "e2scrub_all.timer",
    "dpkg-db-backup.timer",
    # VMs hold the memory that these jobs would fight for, at any hour.
    "apt-daily.timer", "apt-daily-upgrade.timer",
)  # fmt: skip
ADD_QEMU_USER = (
    *("useradd", "--system", "--user-group", "--groups", "kvm", "--home-dir", "/nonexistent"),
    *("--shell", "/usr/sbin/nologin", "carmel-qemu"),
)
_PROGRAMS = ("carmel", "carmeld")


def set_up(root: Path, payload: Path) -> None:
    """Copy Carmel's tree to its place, with links to its programs where people and units look for them."""
    shutil.copytree(payload, root / PREFIX.lstrip("/"), symlinks=True)
    for name in _PROGRAMS:
        (root / "usr/bin" / name).symlink_to(f"{PREFIX}/bin/{name}")
    (root / "etc/carmel").mkdir(mode=0o755, exist_ok=True)
