"""What this controller asks of storage and network, as small protocols that the daemon fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from carmel.hypervisor.config import NicConfig
from carmel.paths import MachinePaths
from carmel.resources.image import Image
from carmel.resources.network import Network
from carmel.resources.virtualmachine import NetworkInterface, NetworkInterfaceStatus
from carmel.resources.volume import Volume


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """A kernel image's files and the command line that it needs."""

    kernel: Path
    initrd: Path | None
    command_line: str


@dataclass(frozen=True, slots=True)
class NicPlan:
    """One NIC: what QEMU is told, and what the status says of it (with the host ports that were chosen)."""

    config: NicConfig
    status: NetworkInterfaceStatus


@dataclass(frozen=True, slots=True)
class Seed:
    """What goes into a cloud-init seed (NoCloud). User and network data are as in their Secrets."""

    instance_id: str
    host_name: str
    user_data: bytes | None
    network_data: bytes | None
    ssh_authorized_keys: Sequence[str]


class Disks(Protocol):
    """Where volumes and kernels lie."""

    async def volume(self, volume: Volume) -> Path:
        """The qcow2 file of a volume that is ready."""
        ...

    async def kernel(self, image: Image) -> KernelFiles: ...


class Nics(Protocol):
    """Plans NICs."""

    async def plan(
        self,
        uid: str,
        host_name: str,
        wanted: Sequence[tuple[NetworkInterface, Network]],
        before: Sequence[NetworkInterfaceStatus],
        paths: MachinePaths,
    ) -> Sequence[NicPlan]:
        """One plan a NIC, in order. Host ports that ``before`` names for the same forward are taken again, if free.

        Raises ``Refused`` (``PortInUse``).
        """
        ...


class Seeds(Protocol):
    """Writes cloud-init seeds."""

    async def write(self, seed: Seed, destination: Path) -> None:
        """A whole ISO image at ``destination``, or nothing. Raises ``Refused`` for data that cannot be used."""
        ...
