"""What makes an installed root file system the image that people boot."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

_BUNDLE = "ca-certificates.crt"
# Our files and where they go.
DEBIAN_FILES = {
    "debian_guest/90-carmel.cfg": "etc/cloud/cloud.cfg.d/90-carmel.cfg",
    # cloud-init also runs without a seed: it makes the ssh host keys.
    "debian_guest/ds-identify.cfg": "etc/cloud/ds-identify.cfg",
    "debian_guest/99-dhcp.network": "etc/systemd/network/99-dhcp.network",
    "debian_guest/wait-online.conf": "etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf",
}
_EMPTIED = ("run", "tmp", "var/tmp", "var/cache/apt", "var/lib/apt/lists", "var/log")


@dataclass(frozen=True, slots=True)
class System:
    """What an installed system is told about itself. ``name`` is host name and entry token (kernel-install(8))."""

    name: str
    root_uuid: str
    esp_device: str
    kernel_command_line: str
    sources_list: str


def customise(root: Path, system: System, files: Mapping[str, str]) -> None:
    """Identity that each copy makes for itself, names, mounts, boot settings; and the traces of the build removed.

    ``files``: more files, from this package, by where they go.
    """
    _forget_identity(root)
    name = system.name
    texts = {
        "etc/hostname": f"{name}\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/fstab": f"UUID={system.root_uuid} / ext4 errors=remount-ro,x-systemd.growfs 0 1\n"
        f"{system.esp_device} /boot/efi vfat umask=0077,noauto,x-systemd.automount,x-systemd.idle-timeout=60 0 0\n",
        "etc/apt/sources.list": system.sources_list,
        # kernel-install(8): later kernels go beside the first, with the same command line.
        "etc/kernel/entry-token": f"{name}\n",
        "etc/kernel/install.conf": "layout=bls\n",
        "etc/kernel/cmdline": f"{system.kernel_command_line}\n",
    }
    for place, text in texts.items():
        _write(root / place, text.encode())
    ours = resources.files("carmel.storage.build")
    for source, place in files.items():
        _write(root / place, ours.joinpath(*source.split("/")).read_bytes())
    (root / "boot/efi").mkdir(exist_ok=True)
    for place in _EMPTIED:
        for path in (root / place).iterdir():
            if path.is_dir() and not path.is_symlink():
                if place != "var/log":
                    shutil.rmtree(path)
            else:
                path.unlink()
    for path in (root / "var/lib/dpkg").glob("*-old"):
        path.unlink()
    for path in (root / "var/cache/debconf").glob("*-old"):
        path.unlink()


def add_certificates(root: Path) -> None:
    """The links and the bundle of update-ca-certificates(8), which takes most of a minute under emulation."""
    folder = root / "etc/ssl/certs"
    bundle = bytearray()
    for line in (root / "etc/ca-certificates.conf").read_text().splitlines():
        if not line or line.startswith(("#", "!")):
            continue
        certificate = Path("usr/share/ca-certificates") / line
        (folder / f"{certificate.stem}.pem").symlink_to(Path("/") / certificate)
        bundle += (root / certificate).read_bytes()
    (folder / _BUNDLE).write_bytes(bundle)


def _forget_identity(root: Path) -> None:
    """Empty: made at first boot, see machine-id(5)."""
    (root / "etc/machine-id").unlink(missing_ok=True)
    _write(root / "etc/machine-id", b"")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "var/lib/systemd/random-seed").unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
