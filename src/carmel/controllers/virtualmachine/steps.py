"""What a plan is made of: steps for ``acting``, what to show, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.hypervisor.devices import DeviceKind
from carmel.placement.model import Refusal, Request
from carmel.resources.virtualmachine import Disk, Termination


@dataclass(frozen=True, slots=True)
class Claim:
    """Make the VM this host's: label and finalizer, before anything is made for it."""


@dataclass(frozen=True, slots=True)
class CreateVolume:
    disk: Disk
    name: str


@dataclass(frozen=True, slots=True)
class AttachVolume:
    name: str


@dataclass(frozen=True, slots=True)
class DetachVolume:
    name: str


@dataclass(frozen=True, slots=True)
class SettlePort:
    """Make the Port of the NIC of this name, or bring it up to date."""

    nic: str


@dataclass(frozen=True, slots=True)
class DropPort:
    name: str


@dataclass(frozen=True, slots=True)
class Plug:
    """Plug the NIC or disk of this name into the running VM: what it needs is there (a disk's Volume is attached)."""

    kind: DeviceKind
    name: str


@dataclass(frozen=True, slots=True)
class Unplug:
    """Have the running guest let go of a NIC or disk that the spec has no more, or wants to be another."""

    kind: DeviceKind
    name: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Ask for a place on the host: it is the VM's from then on, or there is none. ``impossible`` is known before."""

    request: Request
    impossible: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """Start QEMU, from the saved state with ``restore``. ``restarts`` is the count in a row that the status shows."""

    paused: bool
    restore: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class Repin:
    """Hold the running VM where its place is by now."""


@dataclass(frozen=True, slots=True)
class Resume:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    pass


@dataclass(frozen=True, slots=True)
class Suspend:
    pass


@dataclass(frozen=True, slots=True)
class PressButton:
    pass


@dataclass(frozen=True, slots=True)
class Kill:
    reason: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Learn how the machine ended and clear it away."""


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """A run ended and its record is gone: say in the status what can be known."""

    termination: Termination


@dataclass(frozen=True, slots=True)
class DropSavedState:
    pass


@dataclass(frozen=True, slots=True)
class Remove:
    """The VM is being deleted and does not run: files, volumes by their policy, then the finalizer."""


Step = (
    Claim
    | CreateVolume
    | AttachVolume
    | DetachVolume
    | SettlePort
    | DropPort
    | Plug
    | Unplug
    | Reserve
    | Launch
    | Repin
    | Resume
    | Pause
    | Suspend
    | PressButton
    | Kill
    | Collect
    | RecordEnd
    | DropSavedState
    | Remove
)


@dataclass(frozen=True, slots=True)
class Ready:
    """The condition Ready: ``reason`` is one word, ``message`` says what is waited for and what to do."""

    ok: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` are done in order, then everything is looked at again; none: the world is as it should be, or waits.

    ``look_again`` is in how many seconds time itself may change the plan. ``wants_place``: a VM that does not run is to
    start as soon as it has a place on the host, and keeps the one it has.
    """

    ready: Ready
    steps: tuple[Step, ...] = ()
    look_again: float | None = None
    wants_place: bool = False
