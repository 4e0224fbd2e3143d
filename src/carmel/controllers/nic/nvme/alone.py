"""Pure: two NVMeNamespaces never show the same blocks, nor are they shown by one function.

What is shown stays shown; among those that are not, the older one is the one to be.
"""

from __future__ import annotations

from collections.abc import Iterable

from carmel.errors import Conflict
from carmel.resources.nvmenamespace import NVMeNamespace


def require_alone(namespace: NVMeNamespace, others: Iterable[NVMeNamespace]) -> None:
    """Raises ``Conflict`` (``SourceInUse``, ``FunctionInUse``)."""
    for other in sorted(others, key=_rank):
        if other.metadata.uid == namespace.metadata.uid or _rank(other) > _rank(namespace):
            continue
        name = other.metadata.name
        if _blocks(other) == _blocks(namespace):
            raise Conflict(
                f"NVMeNamespace {name} has the same blocks", code="SourceInUse", hint="delete one of the two"
            )
        if namespace.spec.function is not None and other.spec.function == namespace.spec.function:
            raise Conflict(
                f"the function {namespace.spec.function} shows NVMeNamespace {name}",
                code="FunctionInUse",
                hint="unbind that one first, or choose another function",
            )


def _blocks(namespace: NVMeNamespace) -> tuple[str, str, int]:
    """What names them, whichever way leads there: a subsystem has one NQN everywhere."""
    source = namespace.spec.source
    if source.remote is not None:
        return "remote", source.remote.subsystem_nqn, source.remote.namespace_id
    assert source.disk is not None, "admission asks for one of the two"
    return "disk", source.disk.serial, source.disk.namespace_id


def _rank(namespace: NVMeNamespace) -> tuple[bool, str, str]:
    created = namespace.metadata.creation_timestamp
    age = created.isoformat() if created is not None else ""
    return (namespace.status.function is None, age, namespace.metadata.uid or "")
