"""What a pass over a VM saw: values only, so that the plan is a function of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from carmel.controllers.placement.places import PlaceView
from carmel.controllers.placement.recorded import Recorded
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Launch, MachineState
from carmel.resources.image import Image
from carmel.resources.network import Network
from carmel.resources.port import Port, PortSpec
from carmel.resources.virtualmachine import (
    Disk,
    GuestStatus,
    NetworkInterface,
    NetworkInterfaceStatus,
    VirtualMachine,
    VirtualMachineSpec,
)
from carmel.resources.volume import Volume

HOST_LABEL = "carmel.dev/host"
VM_LABEL = "carmel.dev/vm"
VM_UID_LABEL = "carmel.dev/vm-uid"
FINALIZER = "carmel.dev/virtualmachine"

LIVE = frozenset({MachineState.RUNNING, MachineState.PAUSED})
"""States of a machine that has not come to its end."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What one VM may have here. ``None``: not known, so not limited."""

    max_vcpus: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HostView:
    """This host. ``boot_id`` changes with every start of the machine."""

    name: str
    boot_id: str = ""
    unschedulable: bool = False
    limits: HostLimits = field(default_factory=HostLimits)


@dataclass(frozen=True, slots=True)
class Launched:
    """What the last start was made from, kept beside the VM's files: a running VM differs from its spec when the spec
    was changed since."""

    spec: VirtualMachineSpec
    boot_id: str
    networks: tuple[NetworkInterfaceStatus, ...] = ()
    place: Recorded | None = None
    """``None``: it was launched before there was placement."""


@dataclass(frozen=True, slots=True)
class DiskView:
    """A disk of the spec and its volume. ``holder_alive``: the VM that ``usedBy`` names is there."""

    disk: Disk
    volume_name: str
    volume: Volume | None
    holder_alive: bool = False


@dataclass(frozen=True, slots=True)
class PortView:
    """The Port of a NIC, if it is there, the network that it is on, and what it is to say. ``chooses``: the host
    chooses its address."""

    name: str
    network: Network
    port: Port | None
    wanted: PortSpec
    chooses: bool


@dataclass(frozen=True, slots=True)
class NicView:
    """``port`` ``None``: NICs on such a network have none. ``lost``: it is plugged in, and what carried its frames is
    gone."""

    nic: NetworkInterface
    network: Network | None
    port: PortView | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class PlugRefusal:
    """``again``: in how many seconds it is to be tried again; ``None``: not before the device is wanted otherwise."""

    message: str
    again: float | None


@dataclass(frozen=True, slots=True)
class GuestView:
    """What the guest agent told last. ``guest`` ``None``: no agent answers."""

    guest: GuestStatus | None = None
    addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """MAC address and its IP addresses."""


@dataclass(frozen=True, slots=True)
class MachineView:
    """The VM's QEMU. ``migration_blockers`` ``None``: not asked yet."""

    launch: Launch
    state: MachineState
    migration_blockers: tuple[str, ...] | None = None
    guest: GuestView = GuestView()
    nics: tuple[str, ...] = ()
    """Names of the NICs that it has."""
    disks: tuple[str, ...] = ()
    """Names of the disks that it has."""


@dataclass(frozen=True, slots=True)
class ButtonPress:
    """When this launch's power button was pressed by this daemon, on the monotonic clock."""

    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a plan for one VM is made from."""

    vm: VirtualMachine
    host: HostView
    now: datetime
    monotonic: float
    machine: MachineView | None = None
    launched: Launched | None = None
    place: PlaceView = field(default_factory=PlaceView)
    saved: bool = False
    """There is a saved state of a suspended VM."""
    pressed: ButtonPress | None = None
    resumed: float | None = None
    """When this daemon last let the VM run, on the monotonic clock, unless it was paused on purpose since."""
    disks: tuple[DiskView, ...] = ()
    nics: tuple[NicView, ...] = ()
    kernel_image: Image | None = None
    missing_secrets: tuple[str, ...] = ()
    former_volumes: tuple[str, ...] = ()
    """Volumes that the status says are attached and the spec does not name any more."""
    plug_refusals: Mapping[tuple[DeviceKind, str], PlugRefusal] = field(default_factory=dict)
    """Why NICs and disks that are to come or go do not, by kind and name."""
    former_ports: tuple[str, ...] = ()
    """Ports that were made for NICs that the VM has no more: neither its spec nor, while it runs, its machine."""

    @property
    def live(self) -> MachineView | None:
        """The machine, unless it came to its end."""
        return self.machine if self.machine is not None and self.machine.state in LIVE else None
