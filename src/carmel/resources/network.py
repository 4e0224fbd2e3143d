"""Network: a layer-2 network that a VM can be plugged into."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, field_validator

from carmel.errors import Cause
from carmel.resources.base import JsonObject, LocalReference, Model, Resource, Status, Time
from carmel.resources.kinds import Column, Kind
from carmel.resources.port import DataPlane, VlanId

InterfaceName = Annotated[str, StringConstraints(min_length=1, max_length=15, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A network interface by the kernel's name (IFNAMSIZ: 15 characters)."""


class NetworkProvider(StrEnum):
    """``user``: a private network a VM, no privilege needed. ``nat``: a private network of the host, which routes for
    it. ``bridge``: the network that an interface of the host leads to. ``cable``: joins two VMs NIC by NIC, no
    privilege needed."""

    USER = "user"
    NAT = "nat"
    BRIDGE = "bridge"
    CABLE = "cable"


def _subnet(value: str, shortest: int, longest: int) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as exc:
        raise ValueError(f"must be an IPv4 network such as 10.0.2.0/24: {exc}") from None
    if not shortest <= network.prefixlen <= longest:
        raise ValueError(f"must have a prefix between /{shortest} and /{longest}")
    return value


class UserNetwork(Model):
    """The private network that each VM sees behind the host's own address."""

    subnet: str = Field(default="10.0.2.0/24", max_length=18)

    @field_validator("subnet")
    @classmethod
    def _is_network(cls, value: str) -> str:
        return _subnet(value, 8, 27)


class NatNetwork(Model):
    """A private network of the host's VMs: the host is its first address, gives out the others by DHCP, answers DNS and
    lets VMs reach what it reaches itself."""

    subnet: str = Field(max_length=18, description="Such as 10.8.0.0/24. It may overlap with no other network here.")
    dhcp: bool = Field(default=True, description="Give VMs their addresses, and answer DNS, by dnsmasq.")

    @field_validator("subnet")
    @classmethod
    def _is_network(cls, value: str) -> str:
        return _subnet(value, 16, 29)


class Bond(StrEnum):
    """How several uplinks are one, by the kernel's names (bonding.rst)."""

    ACTIVE_BACKUP = "active-backup"
    LACP = "802.3ad"
    BALANCE_XOR = "balance-xor"


class BridgeNetwork(Model):
    """A network that uplinks of whoever switches it (the host, or its SmartNIC) lead to."""

    uplinks: list[InterfaceName] = Field(
        min_length=1, max_length=8, description="Interfaces that lead out. Several need a bond."
    )
    bond: Bond | None = Field(default=None, description="How several uplinks are one.")
    vlan: VlanId | None = Field(default=None, description="The VLAN that it is; untagged frames when absent.")
    takeover: bool = Field(
        default=False,
        description="The uplink has the host's addresses: move them to the bridge, and back unless confirmed in time.",
    )
    confirm_seconds: int = Field(default=60, ge=5, le=3600, description="How long takeover waits to be confirmed.")
    confirmed_at: Time | None = Field(
        default=None,
        description="A time later than status.takeover.startedAt says that the host can still be reached: "
        "`carmel network confirm` sets it.",
    )


class NetworkSpec(Model):
    """What network is wanted. ``mtu`` in bytes."""

    provider: NetworkProvider = NetworkProvider.USER
    user: UserNetwork | None = None
    nat: NatNetwork | None = None
    bridge: BridgeNetwork | None = None
    mtu: int | None = Field(default=None, ge=576, le=9216, description="In bytes; 1500 when absent.")
    data_plane: DataPlane = Field(
        default=DataPlane.HOST,
        description="Who switches: the host's kernel, or a SmartNIC, which gives each VM a PCI function (bridge).",
    )
    smart_nic_ref: LocalReference | None = Field(
        default=None, alias="smartNICRef", description="The SmartNIC, where the host has several."
    )


class TakeoverPhase(StrEnum):
    """``Waiting``: to be confirmed. ``RolledBack``: it was not, and the host is as it was before."""

    WAITING = "Waiting"
    CONFIRMED = "Confirmed"
    ROLLED_BACK = "RolledBack"


class TakeoverStatus(Model):
    """How the move of the uplink's addresses to the bridge goes. ``deadline``: when it is undone."""

    phase: TakeoverPhase
    started_at: Time | None = None
    deadline: Time | None = None


class NetworkStatus(Status):
    """Whether it can be used, and by what it is realised."""

    backend: str | None = Field(
        default=None, description="What realises it here: passt, slirp, linux-bridge or openvswitch."
    )
    interface: str | None = Field(default=None, description="The bridge, by the kernel's name.")
    ports: int | None = Field(default=None, description="How many Ports it has here.")
    takeover: TakeoverStatus | None = None


class Network(Resource):
    """A network."""

    storage_version: ClassVar[int] = 2

    spec: NetworkSpec = Field(default_factory=NetworkSpec)
    status: NetworkStatus = Field(default_factory=NetworkStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = new.get("spec") or {}
    provider = spec.get("provider", "user")
    causes = [
        Cause(f"spec.{section}", f"may only be set with provider {section}", "FieldValueForbidden")
        for section in ("user", "nat", "bridge")
        if spec.get(section) is not None and provider != section
    ]
    causes += [
        Cause(f"spec.{section}", f"is required with provider {section}", "FieldValueRequired")
        for section in ("nat", "bridge")
        if provider == section and spec.get(section) is None
    ]
    causes += _bridge_causes(spec.get("bridge") or {})
    if spec.get("dataPlane") == DataPlane.SMART_NIC and provider != "bridge":
        causes.append(Cause("spec.dataPlane", "SmartNIC needs provider bridge", "FieldValueForbidden"))
    if spec.get("smartNICRef") is not None and spec.get("dataPlane") != DataPlane.SMART_NIC:
        causes.append(Cause("spec.smartNICRef", "may only be set with dataPlane SmartNIC", "FieldValueForbidden"))
    if spec.get("mtu") is not None and provider in {"user", "cable"}:
        causes.append(Cause("spec.mtu", f"may not be set with provider {provider}", "FieldValueForbidden"))
    if old is not None and (old.get("spec") or {}).get("provider") != spec.get("provider"):
        causes.append(Cause("spec.provider", "cannot be changed", "FieldValueForbidden"))
    return causes


def _bridge_causes(bridge: JsonObject) -> list[Cause]:
    uplinks, causes = bridge.get("uplinks") or [], []
    if len(set(uplinks)) != len(uplinks):
        causes.append(Cause("spec.bridge.uplinks", "an uplink is named twice", "FieldValueDuplicate"))
    if len(uplinks) > 1 and bridge.get("bond") is None:
        causes.append(Cause("spec.bridge.bond", "is required with several uplinks", "FieldValueRequired"))
    if bridge.get("takeover") and bridge.get("bond") is not None:
        causes.append(Cause("spec.bridge.takeover", "may not be set with a bond", "FieldValueForbidden"))
    return causes


NETWORK = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Network",
    plural="networks",
    namespaced=False,
    short_names=("net",),
    categories=("carmel",),
    model=Network,
    validate=_validate,
    columns=(
        Column("Provider", ".spec.provider"),
        Column("VLAN", ".spec.bridge.vlan", "integer"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Ports", ".status.ports", "integer"),
        Column("Data-Plane", ".spec.dataPlane", priority=1),
        Column("Backend", ".status.backend", priority=1),
        Column("Interface", ".status.interface", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
