"""What a NIC says of itself, of whatever version it is: what is not known is left out, what is missing has its default.

A newer NIC may name kinds and states that this host has never heard of; an older one lacks fields. Neither may keep the
host from using the rest, so each part is read on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from carmel.resources.base import JsonObject, Model
from carmel.resources.smartnic import (
    FunctionStatus,
    RepresentorStatus,
    ShownNamespace,
    SmartNICMode,
    SmartNICStatus,
    Trust,
)

M = TypeVar("M", bound=Model)

_PARTS = frozenset({"functions", "representors", "namespaces", "conditions"})

PortKey = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class NicFacts:
    """What the SmartNIC object in the NIC's own store says. ``conditions``: Ready as the NIC sees it."""

    serial: str | None = None
    model: str | None = None
    mode: SmartNICMode | None = None
    trust: Trust = Trust.RESTRICTED
    version: str | None = None
    kernel: str | None = None
    boot_id: str | None = None
    hardware_offload: bool | None = None
    functions: tuple[FunctionStatus, ...] = ()
    representors: tuple[RepresentorStatus, ...] = ()
    namespaces: tuple[ShownNamespace, ...] = ()
    ready: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class NicPort:
    """A Port on the NIC, as far as its host has to know it. ``bound`` is the wish, ``plugged`` what is so.

    ``mac``: the one that its guest sees: the wish's, or the function's own where the NIC cannot change that.
    """

    namespace: str
    name: str
    owner: str
    bound: str | None
    plugged: str | None
    ready: bool
    reason: str = ""
    message: str = ""
    mac: str | None = None


def read_nic(obj: JsonObject) -> NicFacts:
    """From a SmartNIC object."""
    status = _dict(obj.get("status"))
    told = {key: value for key, value in status.items() if key not in _PARTS}
    plain = _model(SmartNICStatus, told) or _fields(told)
    ready = condition_of(obj, "Ready")
    return NicFacts(
        serial=plain.serial,
        model=plain.model,
        mode=plain.mode,
        trust=plain.trust or Trust.RESTRICTED,
        version=plain.carmel_version,
        kernel=plain.kernel,
        boot_id=plain.boot_id,
        hardware_offload=plain.hardware_offload,
        functions=_models(FunctionStatus, status.get("functions")),
        representors=_models(RepresentorStatus, status.get("representors")),
        namespaces=_models(ShownNamespace, status.get("namespaces")),
        ready=None if ready.get("status") not in {"True", "False"} else ready["status"] == "True",
        message=_text(ready.get("message")) or "",
    )


def read_port(obj: JsonObject) -> NicPort:
    """From a Port object of the NIC's store."""
    metadata, spec, status = (_dict(obj.get(part)) for part in ("metadata", "spec", "status"))
    ready = condition_of(obj, "Ready")
    return NicPort(
        namespace=_text(metadata.get("namespace")) or "",
        name=_text(metadata.get("name")) or "",
        owner=_text(spec.get("owner")) or "",
        bound=_text(spec.get("function")),
        plugged=_text(status.get("function")),
        ready=ready.get("status") == "True",
        reason=_text(ready.get("reason")) or "",
        message=_text(ready.get("message")) or "",
        mac=_text(status.get("mac")) or _text(spec.get("mac")),
    )


def condition_of(obj: JsonObject, type_: str) -> Mapping[str, Any]:
    """The condition of that type; empty when there is none."""
    listed = _dict(obj.get("status")).get("conditions")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("type") == type_:
            return one
    return {}


def _models(model: type[M], listed: object) -> tuple[M, ...]:
    found = (_model(model, one) for one in (listed if isinstance(listed, list) else ()))
    return tuple(one for one in found if one is not None)


def _model(model: type[M], value: object) -> M | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def _fields(told: Mapping[str, Any]) -> SmartNICStatus:
    """Field by field, where one of them is not as this version knows it."""
    status = SmartNICStatus()
    for key, value in told.items():
        alone = _model(SmartNICStatus, {key: value})
        if alone is not None:
            for name in alone.model_fields_set:
                setattr(status, name, getattr(alone, name))
    return status


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
