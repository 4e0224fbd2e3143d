"""Lease (coordination.k8s.io/v1): a host's heartbeat, so that its inventory is written only when it changes."""

from __future__ import annotations

from pydantic import Field

from carmel.resources.base import MicroTime, Model, Resource
from carmel.resources.kinds import Column, Kind


class LeaseSpec(Model):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: MicroTime | None = None
    renew_time: MicroTime | None = None
    lease_transitions: int | None = None


class Lease(Resource):
    """A lease."""

    spec: LeaseSpec = Field(default_factory=LeaseSpec)


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    model=Lease,
    has_status=False,
    columns=(Column("Holder", ".spec.holderIdentity"), Column("Age", ".metadata.creationTimestamp", "date")),
)
