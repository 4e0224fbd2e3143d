"""Network: a layer-2 network that a VM can be plugged into."""

from __future__ import annotations

import ipaddress
from enum import StrEnum

from pydantic import Field, field_validator

from carmel.errors import Cause
from carmel.resources.base import JsonObject, Model, Resource, Status
from carmel.resources.kinds import Column, Kind


class NetworkProvider(StrEnum):
    """``user``: a private network a VM, no privilege needed. ``nat`` and ``bridge``: of the host."""

    USER = "user"
    NAT = "nat"
    BRIDGE = "bridge"


class UserNetwork(Model):
    """The private network that each VM sees behind the host's own address."""

    subnet: str = Field(default="10.0.2.0/24", max_length=18)

    @field_validator("subnet")
    @classmethod
    def _is_network(cls, value: str) -> str:
        try:
            network = ipaddress.IPv4Network(value)
        except ValueError as exc:
            raise ValueError(f"must be an IPv4 network such as 10.0.2.0/24: {exc}") from None
        if not 8 <= network.prefixlen <= 27:
            raise ValueError("must have a prefix between /8 and /27")
        return value


class NetworkSpec(Model):
    """What network is wanted."""

    provider: NetworkProvider = NetworkProvider.USER
    user: UserNetwork | None = None


class NetworkStatus(Status):
    """Whether it can be used, and by what it is realised."""

    backend: str | None = Field(default=None, description="What realises it here: passt or slirp.")


class Network(Resource):
    """A network."""

    spec: NetworkSpec = Field(default_factory=NetworkSpec)
    status: NetworkStatus = Field(default_factory=NetworkStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = []
    if spec.get("user") is not None and spec.get("provider", "user") != "user":
        causes.append(Cause("spec.user", "may only be set with provider user", "FieldValueForbidden"))
    if old is not None and (old.get("spec") or {}).get("provider") != spec.get("provider"):
        causes.append(Cause("spec.provider", "cannot be changed", "FieldValueForbidden"))
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
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Backend", ".status.backend", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
