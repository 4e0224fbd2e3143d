"""The VMs of the manifests that ``carmel plan`` is given, checked as a server checks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from carmel.cli.manifests import Manifest
from carmel.client.objects import JsonObject
from carmel.errors import Cause, Invalid, Refused
from carmel.resources.admission import admit
from carmel.resources.schema import unknown_fields
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine


@dataclass(frozen=True, slots=True)
class Wanted:
    """``others`` counts the objects of other kinds, which need no place."""

    vms: tuple[VirtualMachine, ...]
    others: Counter[str]


def wanted_vms(manifests: Sequence[Manifest], namespace: str) -> Wanted:
    """In the order of the manifests.

    Raises ``Invalid`` with every field of every VM that is wrong, and ``Refused`` where there is no VM at all.
    """
    vms: list[VirtualMachine] = []
    causes: list[Cause] = []
    said: list[str] = []
    others: Counter[str] = Counter()
    for manifest in manifests:
        if manifest.object["kind"] != VIRTUAL_MACHINE.kind:
            others[manifest.object["kind"]] += 1
            continue
        try:
            vms.append(_admitted(manifest.object, namespace))
        except Invalid as exc:
            causes += exc.causes
            said.append(f"{manifest.origin}: {exc.message}")
    if said:
        raise Invalid("; ".join(said), causes=causes)
    if not vms:
        raise Refused("there is no VirtualMachine among the manifests", code="NothingToDo")
    _check_names(vms)
    return Wanted(tuple(vms), others)


def _admitted(obj: JsonObject, namespace: str) -> VirtualMachine:
    """As the server would store it: nothing that it would refuse is planned for."""
    name = str(obj["metadata"].get("name") or "")
    if obj["apiVersion"] != VIRTUAL_MACHINE.api_version:
        cause = Cause("apiVersion", f"is {obj['apiVersion']}: write {VIRTUAL_MACHINE.api_version}")
        raise Invalid(f"{VIRTUAL_MACHINE.kind} {name!r}: {cause.field} {cause.message}", causes=[cause])
    if unknown := unknown_fields(VIRTUAL_MACHINE, obj):
        raise Invalid(
            f"{VIRTUAL_MACHINE.kind} {name!r} has unknown fields: {', '.join(unknown)}",
            causes=[Cause(field, "is unknown") for field in unknown],
        )
    wanted = {**obj, "metadata": {"namespace": namespace, **obj["metadata"]}}
    return VirtualMachine.model_validate(admit(VIRTUAL_MACHINE, wanted, None))


def _check_names(vms: Sequence[VirtualMachine]) -> None:
    names = Counter((vm.metadata.namespace, vm.metadata.name) for vm in vms if vm.metadata.name)
    for (namespace, name), count in names.items():
        if count > 1:
            raise Invalid(
                f"VirtualMachine {namespace}/{name} stands in the manifests {count} times", field="metadata.name"
            )
