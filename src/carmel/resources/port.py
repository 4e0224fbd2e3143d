"""Port: one NIC of a VM on a Network, as the switch sees it. Made by the VM's controller, realised by a data plane."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from carmel.resources.base import LocalReference, Mac, Model, Resource, Status, Time
from carmel.resources.kinds import Column, Kind

VlanId = Annotated[int, Field(ge=1, le=4094)]
"""IEEE 802.1Q, 9.6: 0 is no VLAN and 4095 is reserved."""


def _address(value: str) -> str:
    return str(ipaddress.ip_address(value))


IpAddress = Annotated[str, AfterValidator(_address)]
"""IPv4 or IPv6, as RFC 5952 writes it."""


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


HOST_OWNER = "host"
"""The owner of a Port that is no VM's but a bare machine's: on its SmartNIC, made and plugged by administrators."""


class PortSpec(Model):
    """``vlan``: untagged frames belong to it (access port). ``trunk``: VLANs that pass tagged besides. ``remote``: as
    with ports of that type in OVN (ovn-nb(5)), one that another machine has."""

    network_ref: LocalReference
    vm_ref: LocalReference
    nic: str = Field(description="The NIC's name in the VM.")
    owner: str = Field(
        max_length=63,
        description="The uid of the VM: it stays when names are used again. On a SmartNIC `host`: the machine itself.",
    )
    mac: Mac
    function: str | None = Field(
        default=None, max_length=63, description="On a SmartNIC: the function that is plugged into the port."
    )
    remote: bool | None = Field(
        default=None,
        description="It is switched elsewhere: never plugged in here, and only a peer of policies, by `addresses`.",
    )
    vlan: VlanId | None = None
    trunk: list[VlanId] | None = Field(default=None, max_length=4094)
    addresses: list[IpAddress] | None = Field(
        default=None,
        max_length=64,
        description="IP addresses that the source guard lets out; any of this MAC if absent.",
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
    """``interface``: the tap or representor that realises it. ``mac``: the one that it has, where that is not
    the wish's (a function that cannot be given one)."""

    data_plane: DataPlane | None = None
    smart_nic: str | None = Field(default=None, alias="smartNIC", description="The SmartNIC that switches it.")
    function: str | None = None
    interface: str | None = None
    mac: str | None = None
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
        Column("Function", ".status.function", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
