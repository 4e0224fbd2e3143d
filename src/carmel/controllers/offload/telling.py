"""Pure: what the host's SmartNIC object says of the NIC and of its functions here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from carmel import __version__
from carmel.controllers.offload.claims import Claim
from carmel.controllers.runtime import condition, error_message, set_conditions
from carmel.errors import CarmelError, Refused
from carmel.resources.base import Condition
from carmel.resources.smartnic import (
    FunctionOwner,
    FunctionState,
    FunctionStatus,
    SmartNIC,
    SmartNICHost,
    SmartNICMode,
)
from carmel.smartnic.link import CONNECTING, NicView
from carmel.smartnic.reading import NicFacts


def verdict(smart_nic: SmartNIC, view: NicView, others: Iterable[SmartNIC]) -> CarmelError | None:
    """Why nothing of the NIC may be used; ``None``: it may."""
    if view.error is not None:
        return view.error
    facts = view.facts
    if facts is None:
        return Refused("it was not reached yet", code=CONNECTING)
    return _identity(smart_nic, facts, others) or _state(smart_nic.metadata.name, facts)


def _identity(smart_nic: SmartNIC, facts: NicFacts, others: Iterable[SmartNIC]) -> CarmelError | None:
    name, pinned = smart_nic.metadata.name, smart_nic.status.serial
    if facts.serial is None:
        return Refused(f"SmartNIC {name} does not tell its serial number", code="NoSerial")
    if pinned is not None and pinned != facts.serial:
        return Refused(
            f"the NIC at {smart_nic.spec.address} has serial number {facts.serial}, and SmartNIC {name} was {pinned}",
            code="SerialChanged",
            hint=f"if it was exchanged, delete SmartNIC {name} and make it anew",
        )
    for other in others:
        if (
            other.metadata.uid != smart_nic.metadata.uid
            and other.status.serial == facts.serial
            and _first(other, smart_nic)
        ):
            return Refused(
                f"SmartNIC {other.metadata.name} has serial number {facts.serial} already",
                code="SerialInUse",
                hint="one NIC is one SmartNIC: delete one of the two, or look at their addresses",
            )
    return None


def _first(one: SmartNIC, other: SmartNIC) -> bool:
    """The older of two that claim the same is believed."""
    return _age(one) < _age(other)


def _age(smart_nic: SmartNIC) -> tuple[str, str]:
    made = smart_nic.metadata.creation_timestamp
    return made.isoformat() if made is not None else "", smart_nic.metadata.name


def _state(name: str, facts: NicFacts) -> CarmelError | None:
    if facts.mode is SmartNICMode.NIC:
        return Refused(
            f"SmartNIC {name} is in NIC mode: its Arm cores switch nothing",
            code="NotInDPUMode",
            hint="switch it to DPU mode in its firmware (BlueField: mlxconfig INTERNAL_CPU_OFFLOAD_ENGINE=0)",
        )
    if facts.ready is False:
        return Refused(f"SmartNIC {name} says: {facts.message or 'it is not ready'}", code="NICNotReady")
    return None


def skew(facts: NicFacts | None, generation: int | None) -> Condition:
    """Whether NIC and host run different versions of Carmel: they understand each other as far as both know."""
    if facts is None or facts.version is None:
        return condition("VersionSkew", "Unknown", "NotTold", generation=generation)
    said = f"the NIC runs Carmel {facts.version}, this host {__version__}"
    if facts.version == __version__:
        return condition("VersionSkew", "False", "SameVersion", said, generation=generation)
    return condition("VersionSkew", "True", "VersionsDiffer", f"{said}: upgrade the older one", generation=generation)


def with_owners(functions: Sequence[FunctionStatus], claims: Iterable[Claim]) -> list[FunctionStatus]:
    """Functions as they were found, with who has them. What a VM has is Plugged, whatever else is wrong with it."""
    owners = {one.function.id: one for one in claims}
    found = []
    for function in functions:
        claim = owners.get(function.id)
        if claim is None:
            found.append(function)
            continue
        owner = FunctionOwner(kind="Port", namespace=claim.key.namespace, name=claim.key.name)
        missing = function.state is FunctionState.MISSING
        state = FunctionState.MISSING if missing else FunctionState.PLUGGED
        message = function.message if missing else None
        found.append(function.model_copy(update={"state": state, "owner": owner, "message": message}))
    return found


def with_disks(functions: Sequence[FunctionStatus], owners: Mapping[str, FunctionOwner]) -> list[FunctionStatus]:
    """The same for what volumes have."""
    found = []
    for function in functions:
        owner = owners.get(function.id)
        if owner is None:
            found.append(function)
            continue
        state = FunctionState.PLUGGED if function.state is FunctionState.FREE else function.state
        found.append(function.model_copy(update={"state": state, "owner": owner}))
    return found


def tell(
    one: SmartNIC,
    host: str,
    view: NicView,
    functions: Sequence[FunctionStatus],
    wrong: CarmelError | None,
    now: datetime,
) -> None:
    """Write the status. What a NIC that is away said last stays; what one says that is not believed is not written."""
    status, facts, generation = one.status, view.facts, one.metadata.generation
    status.observed_generation = generation
    status.host = SmartNICHost(name=host)
    believed = wrong is None or wrong.code in {"NotInDPUMode", "NICNotReady"}
    if facts is not None and view.reached and believed:
        status.serial = status.serial or facts.serial
        status.model, status.mode, status.trust = facts.model, facts.mode, facts.trust
        status.carmel_version, status.kernel, status.boot_id = facts.version, facts.kernel, facts.boot_id
        status.hardware_offload = facts.hardware_offload
        status.representors = list(facts.representors) or None
        status.namespaces = list(facts.namespaces) or None
    status.functions = list(functions) or None
    ready = (
        condition("Ready", "True", "Ready", "the NIC answers", generation=generation)
        if wrong is None
        else condition("Ready", "False", wrong.code, error_message(wrong), generation=generation)
    )
    set_conditions(status, [ready, skew(facts, generation)], now)
