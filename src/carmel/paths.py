"""Every path that Carmel uses comes from one ``Paths`` value.

Three roots, as systemd's file hierarchy and the XDG base directory specification have them:

========  ==========================  ======================================  =========================================
root      as root                     as a user                               holds
========  ==========================  ======================================  =========================================
state     /var/lib/carmel             $XDG_STATE_HOME/carmel                  store, launch records, datastores, keys
runtime   /run/carmel                 $XDG_RUNTIME_DIR/carmel                 sockets; gone after a reboot
cache     /var/cache/carmel           $XDG_CACHE_HOME/carmel                  what can be made or fetched again
========  ==========================  ======================================  =========================================

A Unix socket's path has 108 bytes on Linux and 104 on macOS, its terminator included (unix(7)), so sockets of a
VM lie in a directory that is named by a short hash of the VM's uid.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_MAX_BYTES = 103


def short_hash(uid: str) -> str:
    """Ten characters that stand for a uid in a socket's path: 40 bits, plenty for the VMs of one host."""
    return hashlib.sha256(uid.encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where this host keeps its things. ``CARMEL_STATE_DIR``, ``CARMEL_RUN_DIR`` and ``CARMEL_CACHE_DIR`` win."""

    state: Path
    runtime: Path
    cache: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, *, root: bool | None = None) -> Paths:
        env = os.environ if environ is None else environ
        as_root = os.geteuid() == 0 if root is None else root
        if as_root:
            state, runtime, cache = Path("/var/lib/carmel"), Path("/run/carmel"), Path("/var/cache/carmel")
        else:
            home = Path(env.get("HOME") or Path.home())
            state = Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "carmel"
            cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "carmel"
            # Without a log-in session (cron, ssh to macOS) there is no XDG_RUNTIME_DIR.
            fallback = Path(tempfile.gettempdir()) / f"carmel-{os.geteuid()}"
            runtime = Path(env["XDG_RUNTIME_DIR"]) / "carmel" if env.get("XDG_RUNTIME_DIR") else fallback
        return cls(
            state=Path(env.get("CARMEL_STATE_DIR") or state),
            runtime=Path(env.get("CARMEL_RUN_DIR") or runtime),
            cache=Path(env.get("CARMEL_CACHE_DIR") or cache),
        )

    # -- the daemon's own ---------------------------------------------------------------------------------------
    @property
    def database(self) -> Path:
        return self.state / "store.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the one daemon that may use this state directory."""
        return self.state / "carmeld.lock"

    @property
    def pki(self) -> Path:
        """The host's certificate authority, server certificate and keys (0700)."""
        return self.state / "pki"

    @property
    def api_socket(self) -> Path:
        return self.runtime / "api.sock"

    @property
    def https_port_file(self) -> Path:
        """The TCP port that the HTTPS listener got, in decimal."""
        return self.runtime / "https.port"

    # -- the host image -----------------------------------------------------------------------------------------
    @property
    def firstboot_record(self) -> Path:
        """The files that ``carmel.yaml`` of the host image asked for."""
        return self.state / "firstboot" / "files.json"

    @property
    def firstboot_report(self) -> Path:
        """How applying ``carmel.yaml`` went at this boot; for everybody's eyes."""
        return self.runtime / "firstboot.json"

    # -- storage ------------------------------------------------------------------------------------------------
    @property
    def default_datastore(self) -> Path:
        return self.state / "datastores" / "local"

    @property
    def build_cache(self) -> Path:
        return self.cache / "build"

    @property
    def ready_made(self) -> Path:
        """Images that were installed with Carmel, so that this host need not build them (``storage.build.payload``)."""
        return Path(sys.prefix) / "share" / "carmel" / "images"

    @property
    def nbd_keys(self) -> Path:
        """Keys of NBD servers, while these are asked something."""
        return self.runtime / "nbd"

    @property
    def uploads(self) -> Path:
        """Half-received uploads; emptied when the daemon starts."""
        return self.state / "uploads"

    # -- a SmartNIC's NVMe functions ----------------------------------------------------------------------------
    @property
    def exports(self) -> Path:
        """A directory for each namespace that is exported (``ExportPaths``)."""
        return self.runtime / "nvme"

    def export(self, uid: str) -> ExportPaths:
        return ExportPaths(self.exports / short_hash(uid), self.state / "nvme" / f"{uid}.log")

    # -- networks -----------------------------------------------------------------------------------------------
    @property
    def networks(self) -> Path:
        """There since this host first had networks of its own; what uplinks were like before."""
        return self.state / "networks"

    @property
    def network_runtime(self) -> Path:
        """Of DHCP servers, which have no privileges, and what networks there are; gone after a reboot."""
        return self.runtime / "networks"

    # -- virtual machines ---------------------------------------------------------------------------------------
    @property
    def qemu_abilities(self) -> Path:
        """What each QEMU binary said that it can do."""
        return self.cache / "qemu"

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    @property
    def cables(self) -> Path:
        """A directory for each network of provider cable, with the sockets of its two ends."""
        return self.runtime / "cable"

    def machine(self, uid: str) -> MachinePaths:
        return MachinePaths(state=self.machines / uid, runtime=self.runtime / "vm" / short_hash(uid))


@dataclass(frozen=True, slots=True)
class MachinePaths:
    """What belongs to one VM on this host, and goes with it."""

    state: Path
    runtime: Path

    @property
    def launch_record(self) -> Path:
        return self.state / "launch.json"

    @property
    def launched_spec(self) -> Path:
        """The spec that the VM was last started from."""
        return self.state / "launched.json"

    @property
    def nvram(self) -> Path:
        """UEFI variables, padded to the flash's 64 MiB."""
        return self.state / "nvram.fd"

    @property
    def saved_state(self) -> Path:
        """The memory of a suspended VM."""
        return self.state / "suspend.state"

    @property
    def saved_state_in_progress(self) -> Path:
        """Becomes ``saved_state`` when it is whole."""
        return self.state / "suspend.state.part"

    @property
    def serial_log_older(self) -> Path:
        """What ``serial_log`` held before it was last shortened."""
        return self.state / "serial.log.1"

    @property
    def serial_log(self) -> Path:
        return self.state / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """QEMU's standard output and error: its last words."""
        return self.state / "qemu.log"

    @property
    def cloud_init_iso(self) -> Path:
        return self.state / "cidata.iso"

    @property
    def qmp_socket(self) -> Path:
        return self.runtime / "qmp"

    @property
    def serial_socket(self) -> Path:
        return self.runtime / "serial"

    @property
    def agent_socket(self) -> Path:
        return self.runtime / "agent"

    def key_folder(self, name: str) -> Path:
        """The key of one of the VM's connections by TLS, for its QEMU only."""
        return self.runtime / name

    def network_socket(self, index: int) -> Path:
        return self.runtime / f"net{index}"


@dataclass(frozen=True, slots=True)
class ExportPaths:
    """What belongs to the exporter of one namespace. ``runtime`` holds sockets and keys, and goes with it."""

    runtime: Path
    log: Path

    @property
    def keys(self) -> Path:
        """A directory, as QEMU's tls-creds-psk takes it."""
        return self.runtime / "keys"

    @property
    def qmp_socket(self) -> Path:
        return self.runtime / "qmp"
