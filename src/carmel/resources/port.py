"""Port: one NIC of a VM on a Network, as the switch sees it. Made by the VM's controller, realised by a data plane."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from carmel.resources.base import LocalReference, Model, Resource, Status, Time
from carmel.resources.kinds import Column, Kind

VlanId = Annotated[int, Field(ge=1, le=4094)]
"""IEEE 802.1Q, 9.6: 0 is no VLAN and 4095 is reserved."""


class DataPlane(StrEnum):
    """Who switches: the host's kernel, or the Arm cores of a SmartNIC."""

    HOST = "Host"
    SMART_NIC = "SmartNIC"


class RateLimit(Model):
    """Of one direction, as the VM sees it. ``burst`` in kB; derived from the rate when absent."""

    kbps: int = Field(ge=64, le=400_000_000, description="Kilobits a second.")
    burst_kb: int | None = Field(default=None, ge=2, le=1_000_000)


class PortLimits(Model):
    """What the VM may receive and send."""

    ingress: RateLimit | None = None
    egress: RateLimit | None = None


class PortSpec(Model):
    """``vlan``: untagged frames belong to it (access port). ``trunk``: VLANs that pass tagged besides."""

    network_ref: LocalReference
    vm_ref: LocalReference
    nic: str = Field(description="The NIC's name in the VM.")
    mac: str
    vlan: VlanId | None = None
    trunk: list[VlanId] | None = Field(default=None, max_length=4094)
    addresses: list[str] | None = Field(
        default=None, max_length=64, description="IP addresses that the source guard lets out; those learned if absent."
    )
    source_guard: bool = Field(default=True, description="Drop frames with another source MAC or IP address.")
    limits: PortLimits | None = None
    mirror_to: LocalReference | None = Field(default=None, description="A Port that gets a copy of each frame.")


class PortCounters(Model):
    """As the VM sees it. ``dropped`` by source guard and firewall."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    dropped_packets: int


class PortStatus(Status):
    """``interface``: the tap or representor that realises it."""

    data_plane: DataPlane | None = None
    interface: str | None = None
    addresses: list[str] | None = None
    counters: PortCounters | None = None
    counted_at: Time | None = None


class Port(Resource):
    """A port."""

    spec: PortSpec
    status: PortStatus = Field(default_factory=PortStatus)


PORT = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Port",
    plural="ports",
    categories=("carmel",),
    model=Port,
    columns=(
        Column("Network", ".spec.networkRef.name"),
        Column("VM", ".spec.vmRef.name"),
        Column("MAC", ".spec.mac"),
        Column("VLAN", ".spec.vlan", "integer"),
        Column("Address", ".status.addresses[0]"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Interface", ".status.interface", priority=1),
        Column("Data-Plane", ".status.dataPlane", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
