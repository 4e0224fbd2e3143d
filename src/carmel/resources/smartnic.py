"""SmartNIC: a NIC with Arm cores of its own (a DPU), the host that it serves, and what it gives to it.

The same kind lies in two stores. In the host's, ``spec`` says how the NIC is reached, and ``status`` repeats what the
NIC tells of itself. In the NIC's own there is one, of the NIC itself: its ``spec.trust`` is the NIC's administrators'
alone, and its ``status`` is where the host reads. Words are those of devlink (devlink-port(8)) and of OPI's API.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, LocalReference, Model, Resource, Status
from carmel.resources.kinds import Column, Kind
from carmel.resources.nvmenamespace import NVMeNamespaceState, NVMeOwner


class SmartNICMode(StrEnum):
    """``DPU``: the Arm cores own the NIC and its switch. ``NIC``: it is a plain NIC, and nothing can be offloaded."""

    DPU = "DPU"
    NIC = "NIC"


class Trust(StrEnum):
    """What the host may say to the NIC. ``Restricted``: into which of the ports that the NIC's administrators made a
    function is plugged. ``Full``: also which networks, ports and firewall policies there are."""

    RESTRICTED = "Restricted"
    FULL = "Full"


class SwitchKind(StrEnum):
    """What a SmartNIC's Arm cores switch with."""

    LINUX_BRIDGE = "LinuxBridge"
    OPEN_VSWITCH = "OpenVSwitch"


class FunctionKind(StrEnum):
    NET = "net"
    NVME = "nvme"


class FunctionState(StrEnum):
    """``Free``: nobody has it. ``Plugged``: it is plugged into a port, or shows a namespace. ``Missing``: the host does
    not see it. ``Refused``: it cannot be passed on, see ``message``."""

    FREE = "Free"
    PLUGGED = "Plugged"
    MISSING = "Missing"
    REFUSED = "Refused"


class FunctionOwner(Model):
    """Who has a function: a VM's NIC by its Port, what an NVMe function shows, or the host itself."""

    kind: str = Field(description="Port, NVMeNamespace or Host.")
    namespace: str | None = None
    name: str


class FunctionStatus(Model):
    """A PCI function that the NIC shows to its host. ``id`` is the NIC's name of it (``pf0vf3``, ``pf0nvme0``).
    ``pci_address`` is the host's: the host finds it by ``mac``, or by ``serial``, where the NIC cannot tell it."""

    id: str
    kind: FunctionKind
    pci_address: str | None = None
    mac: str | None = None
    serial: str | None = Field(default=None, description="nvme: the controller's serial number.")
    representor: str | None = None
    iommu_group: int | None = None
    numa_node: int | None = None
    driver: str | None = None
    state: FunctionState = FunctionState.FREE
    owner: FunctionOwner | None = None
    message: str | None = None


class RepresentorStatus(Model):
    """An interface on the NIC's Arm cores. ``flavour`` as devlink has it: ``physical`` (an uplink), ``pci_pf``,
    ``pci_vf``, ``pci_sf``. ``interface``: the kernel's name of it now."""

    name: str
    interface: str
    flavour: str
    function: str | None = None
    up: bool = False


class ShownNamespace(Model):
    """What the host may know of an NVMeNamespace of the NIC. ``owner`` is the VM that may have it; ``function`` the one
    that shows it. Where its blocks come from stays with the NIC."""

    name: str
    state: NVMeNamespaceState = NVMeNamespaceState.CONNECTING
    size_bytes: int | None = None
    owner: NVMeOwner | None = None
    function: str | None = None
    stall_seconds: int | None = None


class SmartNICSpec(Model):
    """``address``: where the NIC's daemon answers on the internal link, such as 192.168.100.2:17443. In the NIC's own
    store only ``trust`` and ``switch`` count."""

    address: str | None = Field(default=None, max_length=64, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$")
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="A Secret in carmel-system, what the NIC knows the host by: keys ca.crt, tls.crt and tls.key.",
    )
    relay_port: int | None = Field(
        default=None, ge=1, le=65535, description="The host's TCP port that leads to the NIC's API; chosen when absent."
    )
    trust: Trust = Field(default=Trust.RESTRICTED, description="In the NIC's own store: what its host may say to it.")
    switch: SwitchKind = Field(
        default=SwitchKind.LINUX_BRIDGE,
        description="In the NIC's own store: what it switches with, from its daemon's next start. It can be changed "
        "while no function is plugged into a port.",
    )


class SmartNICHost(Model):
    """The host that the NIC serves."""

    name: str


class SmartNICStatus(Status):
    """What the NIC is."""

    serial: str | None = None
    model: str | None = Field(default=None, description="Of the board catalogue, such as bluefield-2 or emulated.")
    mode: SmartNICMode | None = None
    trust: Trust | None = None
    carmel_version: str | None = None
    kernel: str | None = None
    boot_id: str | None = Field(default=None, alias="bootID")
    switch: SwitchKind | None = Field(default=None, description="What it switches with now.")
    hardware_offload: bool | None = Field(default=None, description="Flows are switched by the NIC's e-switch.")
    host: SmartNICHost | None = None
    relay: str | None = Field(default=None, description="The URL on the host that leads to the NIC's API.")
    functions: list[FunctionStatus] | None = None
    representors: list[RepresentorStatus] | None = None
    namespaces: list[ShownNamespace] | None = Field(default=None, description="NVMe namespaces that the NIC offers.")


class SmartNIC(Resource):
    """A SmartNIC."""

    spec: SmartNICSpec = Field(default_factory=SmartNICSpec)
    status: SmartNICStatus = Field(default_factory=SmartNICStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    def switch(nic: JsonObject) -> str:
        return str((nic.get("spec") or {}).get("switch") or SwitchKind.LINUX_BRIDGE)

    if old is None or switch(old) == switch(new):
        return []
    functions = (old.get("status") or {}).get("functions") or []
    plugged = [
        one["id"] for one in functions if one["kind"] == FunctionKind.NET and one.get("state") == FunctionState.PLUGGED
    ]
    if not plugged:
        return []
    return [
        Cause(
            "spec.switch",
            f"cannot be changed while functions are plugged into ports: {', '.join(sorted(plugged)[:8])}",
            "FieldValueForbidden",
        )
    ]


SMART_NIC = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="SmartNIC",
    plural="smartnics",
    namespaced=False,
    short_names=("snic", "dpu"),
    categories=("carmel",),
    model=SmartNIC,
    validate=_validate,
    columns=(
        Column("Model", ".status.model"),
        Column("Serial", ".status.serial"),
        Column("Mode", ".status.mode"),
        Column("Trust", ".status.trust"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Version", ".status.carmelVersion", priority=1),
        Column("Switch", ".status.switch", priority=1),
        Column("Address", ".spec.address", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
