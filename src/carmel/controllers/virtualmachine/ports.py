"""What this controller asks of storage and network, as small protocols that the daemon fulfils."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from carmel.hypervisor.config import NicConfig
from carmel.hypervisor.psk import Psk
from carmel.paths import MachinePaths
from carmel.resources.image import Image
from carmel.resources.network import Network
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import (
    NetworkInterface,
    NetworkInterfaceStatus,
    VirtualMachine,
    VirtualMachineSpec,
)
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


@dataclass(frozen=True, slots=True)
class NbdSource:
    """A disk that an NBD server exports."""

    host: str
    port: int
    export: str
    psk: Psk
    stall_seconds: int


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A disk that is a PCI function of the host, with vfio-pci, by its PCI address."""

    address: str


DiskSource = Path | NbdSource | FunctionSource
"""A path is that of a qcow2 file."""


class Disks(Protocol):
    """Where volumes and kernels lie."""

    async def volume(self, volume: Volume, vm: str) -> DiskSource:
        """A volume that is ready, for the VM of that name. Raises ``Refused`` and ``Unavailable``."""
        ...

    async def kernel(self, image: Image) -> KernelFiles: ...


@dataclass(frozen=True, slots=True)
class WantedNic:
    """A NIC of a VM's spec, its place in the list (which is its place in the VM), and the Network that it is on."""

    index: int
    nic: NetworkInterface
    network: Network

    @property
    def data_plane(self) -> DataPlane:
        """Whose its frames are to be here: the NIC's own word, else the Network's."""
        return self.nic.data_plane or self.network.spec.data_plane

    @property
    def offloaded(self) -> bool:
        """Whether a SmartNIC is to switch it, whoever carries its frames to that."""
        return DataPlane.SMART_NIC in {self.nic.data_plane, self.network.spec.data_plane}


@dataclass(frozen=True, slots=True)
class VmOfNics:
    """Whose NICs are planned. ``spec`` is what it starts with: that of a suspended VM may be older than the VM's own.
    ``before``: its NICs as they were at its last start."""

    vm: VirtualMachine
    spec: VirtualMachineSpec
    before: Sequence[NetworkInterfaceStatus]
    paths: MachinePaths

    @property
    def uid(self) -> str:
        return self.vm.metadata.uid or ""


class Nics(Protocol):
    """Gives a VM its NICs, and takes back what it gave."""

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        """One plan a NIC, in order. It may open descriptors: the caller closes them. Whatever happens after it, or
        within it, ``release`` takes it back.

        Raises ``Refused`` (``PortInUse``, ``NotSupported``, what a data plane refuses).
        """
        ...

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        """Take back what NICs of the VM were given, but for those named: they are plugged into a QEMU that runs.

        Asked at every look at a VM that does not run, at failed starts and when a NIC was unplugged: whoever gave
        nothing does nothing. Does not raise for what is gone already.
        """
        ...


class NicSource(Nics, Protocol):
    """``Nics`` of one kind of network. ``plan`` gets those of a VM's NICs that it ``serves``, and is not called for
    none."""

    def serves(self, wanted: WantedNic) -> bool: ...


LostNics = Callable[[str, Sequence[NetworkInterfaceStatus]], Awaitable[Collection[str]]]
"""Of a VM's NICs, as they were given, the names of those that carry nothing until they are plugged anew. By its uid."""


async def none_lost(_uid: str, _nics: Sequence[NetworkInterfaceStatus]) -> Collection[str]:
    return ()


class Seeds(Protocol):
    """Writes cloud-init seeds."""

    async def write(self, seed: Seed, destination: Path) -> None:
        """A whole ISO image at ``destination``, or nothing. Raises ``Refused`` for data that cannot be used."""
        ...
