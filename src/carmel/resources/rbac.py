"""RoleBinding and ClusterRoleBinding (rbac.authorization.k8s.io/v1): who is admin, operator or viewer, and where.

The roles are fixed, so there are no Role objects to get wrong: ``roleRef.name`` is one of them.

========  ==============================================================================================
admin     everything in the namespace, its bindings and secrets too; bound cluster-wide: everything
operator  everything with VMs, images, volumes, tasks and consoles; may use secrets, not read them; no bindings
viewer    reads all but secrets
========  ==============================================================================================
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, Model, Resource
from carmel.resources.kinds import Column, Kind

GROUP = "rbac.authorization.k8s.io"


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Subject(Model):
    """A user or a group."""

    kind: str = "User"
    name: str
    api_group: str | None = None
    namespace: str | None = None


class RoleRef(Model):
    """Which role is given."""

    api_group: str = GROUP
    kind: str = "ClusterRole"
    name: str


class RoleBinding(Resource):
    """Gives subjects a role: in its namespace, or everywhere for a ClusterRoleBinding."""

    role_ref: RoleRef
    subjects: list[Subject] | None = Field(default=None, json_schema_extra={"x-kubernetes-list-type": "atomic"})


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    causes = []
    reference = new.get("roleRef") or {}
    if reference.get("name") not in set(Role):
        causes.append(Cause("roleRef.name", f"must be one of {', '.join(Role)}", "FieldValueNotSupported"))
    for index, subject in enumerate(new.get("subjects") or []):
        if subject.get("kind") not in {"User", "Group"}:
            causes.append(Cause(f"subjects[{index}].kind", "must be User or Group", "FieldValueNotSupported"))
    if old is not None and old.get("roleRef") != reference:
        causes.append(Cause("roleRef", "cannot be changed: delete the binding and make another", "FieldValueForbidden"))
    return causes


def _kind(name: str, plural: str, *, namespaced: bool) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=name,
        plural=plural,
        namespaced=namespaced,
        model=RoleBinding,
        validate=_validate,
        has_status=False,
        columns=(Column("Role", ".roleRef.name"), Column("Age", ".metadata.creationTimestamp", "date")),
    )


ROLE_BINDING = _kind("RoleBinding", "rolebindings", namespaced=True)
CLUSTER_ROLE_BINDING = _kind("ClusterRoleBinding", "clusterrolebindings", namespaced=False)
