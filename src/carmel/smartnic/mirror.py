"""Pure: what a NIC should have of its host's networks, ports and policies, and what is missing for that.

Objects are JSON, as the API has them. On the NIC a network is switched by the NIC itself (``dataPlane: Host``: there it
is the host), a port has its VM's labels and no owner, and each has the label ``carmel.dev/mirrored-from``. What has not
that label is the NIC's administrators' own and is left alone. Ports of VMs elsewhere are there too, as far as policies
have them as peers (``peers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, dig, metadata
from carmel.resources.firewallpolicy import FirewallPolicy
from carmel.resources.network import Network
from carmel.resources.port import DataPlane, Port
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS
from carmel.smartnic.peers import is_remote, peers_elsewhere, remote_spec
from carmel.smartnic.schemas import Schemas, known_part

MIRRORED_FROM = "carmel.dev/mirrored-from"
_ITS_OWN = frozenset({"function"})
"""Fields of a port that are not mirrored: what is plugged in is said by a binding."""
_MODELS: Mapping[ResourceType, type[Network | Port | FirewallPolicy]] = {
    NETWORKS: Network,
    POLICIES: FirewallPolicy,
    PORTS: Port,
}


class _Stage(IntEnum):
    """Made in this order and removed in the reverse: no port is ever there before the policies that are about it, and
    who is denied (ports elsewhere) is known when policies come, and until they have gone."""

    NAMESPACE = 0
    NETWORK = 1
    PORT_ELSEWHERE = 2
    POLICY = 3
    PORT = 4


_STAGES = {NAMESPACES: _Stage.NAMESPACE, NETWORKS: _Stage.NETWORK, POLICIES: _Stage.POLICY, PORTS: _Stage.PORT}
KINDS = tuple(_STAGES)
"""What is mirrored."""


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class HostObjects:
    """What the host's API has."""

    networks: Sequence[JsonObject] = ()
    ports: Sequence[JsonObject] = ()
    policies: Sequence[JsonObject] = ()
    namespaces: Sequence[JsonObject] = ()
    smart_nics: Sequence[JsonObject] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """``body``: the object to create; the JSON merge patch (RFC 7396) of an update. ``fields``: what an update changes,
    for people."""

    verb: Verb
    kind: ResourceType
    namespace: str
    name: str
    body: JsonObject = field(default_factory=dict)
    fields: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """``Port default/web-eth0``."""
        return _words(self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Difference:
    """``changes`` in the order in which they are made. ``notes``: sentences about what is left as it is.
    ``left_out``: objects with the fields that a NIC of another version does not know (``Network lan: spec.mtu``)."""

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


Wanted = Mapping[ResourceType, Sequence[JsonObject]]


# -- what is wanted ---------------------------------------------------------------------------------------------------
def wanted_on(nic: str, host: str, have: HostObjects) -> Wanted:
    """The objects that the SmartNIC called ``nic`` should have, as they are to be there."""
    networks = {metadata(one, "name"): one for one in have.networks if _is_for(one, nic)}
    alone = [metadata(one, "name") for one in have.smart_nics] == [nic]
    ports = [one for one in have.ports if _belongs(one, nic, networks, alone=alone)]
    spaces = {metadata(one, "namespace") for one in ports}
    policies = [one for one in have.policies if metadata(one, "namespace") in spaces]
    here = {_key(one) for one in ports}
    others = [one for one in have.ports if _key(one) not in here and not _goes(one)]
    remote = peers_elsewhere(policies, others, have.namespaces)
    spaces |= {metadata(one, "namespace") for one in remote}
    return {
        NAMESPACES: [_mirrored(one, host) for one in have.namespaces if metadata(one, "name") in spaces],
        NETWORKS: [_mirrored(one, host, _network_spec(one)) for one in networks.values()],
        POLICIES: [_mirrored(one, host, _spec(one)) for one in policies],
        PORTS: [
            *(_mirrored(one, host, remote_spec(one)) for one in remote),
            *(_mirrored(one, host, _without(_spec(one), _ITS_OWN)) for one in ports),
        ],
    }


def _is_for(network: JsonObject, nic: str) -> bool:
    spec = _spec(network)
    named = dig(spec, "smartNICRef", "name")
    return spec.get("dataPlane") == DataPlane.SMART_NIC and named in {None, nic} and not _goes(network)


def _belongs(port: JsonObject, nic: str, networks: Mapping[str, JsonObject], *, alone: bool) -> bool:
    """Whether this NIC switches the port: the one that was chosen; before that the one that its network names, or the
    only one. What has a function of it stays there until that was pulled out, whoever is to switch it by then."""
    network = networks.get(str(dig(port, "spec", "networkRef", "name")))
    chosen = dig(port, "status", "smartNIC")
    if chosen == nic and dig(port, "status", "function") is not None:
        return True
    if network is None or _goes(port):
        return False
    if chosen is not None:
        return bool(chosen == nic)
    return alone or dig(network, "spec", "smartNICRef", "name") == nic


def _mirrored(obj: JsonObject, host: str, spec: JsonObject | None = None) -> JsonObject:
    """The object for the NIC: its name, its labels and its spec, and no more."""
    kept: JsonObject = {"name": metadata(obj, "name")}
    if namespace := metadata(obj, "namespace"):
        kept["namespace"] = namespace
    kept["labels"] = {**_labels(obj), MIRRORED_FROM: host}
    return {"metadata": kept} if spec is None else {"metadata": kept, "spec": spec}


def _network_spec(network: JsonObject) -> JsonObject:
    return {**_without(_spec(network), {"smartNICRef"}), "dataPlane": DataPlane.HOST.value}


# -- what is missing --------------------------------------------------------------------------------------------------
def compare(
    wanted: Wanted,
    there: Mapping[ResourceType, Iterable[JsonObject]],
    host: str,
    schemas: Schemas = MappingProxyType({}),
) -> Difference:
    """``there`` is what the NIC has; kinds that are not in it are left out of the comparison. ``schemas``: those of a
    NIC of another version."""
    changes: list[tuple[_Stage, Change]] = []
    notes: list[str] = []
    left_out: list[str] = []
    removals: list[tuple[_Stage, Change]] = []
    here = (port for port in wanted.get(PORTS, ()) if not is_remote(port))
    used = {("", str(dig(port, "spec", "networkRef", "name"))) for port in here}
    for kind in KINDS:
        if kind not in there:
            continue
        known = {_key(one): one for one in there[kind]}
        for whole in wanted.get(kind, ()):
            obj, unknown = known_part(schemas.get(kind.kind, {}), whole)
            if unknown:
                left_out.append(f"{_called(kind, obj)}: {', '.join(unknown)}")
            if is_remote(whole) and not is_remote(obj):
                # To a NIC that does not know what that is, it would be a port like any other.
                continue
            found = _bring_about(kind, obj, known.pop(_key(obj), None), host)
            if isinstance(found, str):
                notes.append(found)
            elif found is not None:
                changes.append((_stage(kind, obj), found))
        left = [one for key, one in known.items() if kind is not NETWORKS or key not in used]
        removals += _removals(kind, left, host)
    made, removed = (sorted(one, key=lambda staged: staged[0]) for one in (changes, removals))
    return Difference(tuple(change for _, change in (*made, *reversed(removed))), tuple(notes), tuple(left_out))


def _stage(kind: ResourceType, obj: JsonObject) -> _Stage:
    return _Stage.PORT_ELSEWHERE if kind is PORTS and is_remote(obj) else _STAGES[kind]


def _bring_about(kind: ResourceType, obj: JsonObject, there: JsonObject | None, host: str) -> Change | str | None:
    """The change that it takes, a sentence if it must not be made, or nothing."""
    namespace, name = _key(obj)
    if there is None:
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        return Change(Verb.CREATE, kind, namespace, name, body)
    ours = _labels(there).get(MIRRORED_FROM) == host
    patch = _patch(kind, obj, there, ours=ours)
    if not patch:
        return None
    if not ours:
        return f"{_called(kind, obj)} is the NIC's own and stays as it is, though this host's differs"
    return Change(Verb.UPDATE, kind, namespace, name, patch, tuple(_paths(patch)))


def _removals(kind: ResourceType, left: Iterable[JsonObject], host: str) -> Iterator[tuple[_Stage, Change]]:
    """With a namespace would go whatever else is in it: it stays."""
    if kind is NAMESPACES:
        return
    for obj in left:
        if _labels(obj).get(MIRRORED_FROM) == host and not _goes(obj):
            yield _stage(kind, obj), Change(Verb.DELETE, kind, *_key(obj))


def _patch(kind: ResourceType, wanted: JsonObject, there: JsonObject, *, ours: bool) -> JsonObject:
    patch: JsonObject = {}
    after = _labels(wanted) if ours else _without(_labels(wanted), {MIRRORED_FROM})
    labels = _merge_patch(_labels(there), after)
    if kind is NAMESPACES:
        # Kubernetes labels a namespace with its own name.
        labels = {key: value for key, value in labels.items() if value is not None}
    if labels:
        patch["metadata"] = {"labels": labels}
    if "spec" in wanted:
        before = _without(_normal(kind, there), _ITS_OWN if kind is PORTS else ())
        spec = _merge_patch(before, _normal(kind, wanted))
        if spec:
            patch["spec"] = spec
    return patch


def _normal(kind: ResourceType, obj: JsonObject) -> JsonObject:
    """The spec with its defaults, so that what one of two versions writes and the other leaves out is no difference."""
    model = _MODELS.get(kind)
    if model is None:
        return _spec(obj)
    try:
        return model.model_validate(obj).spec.to_json()
    except ValidationError:
        return _spec(obj)


def _merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> JsonObject:
    patch: JsonObject = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := _merge_patch(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


def _paths(patch: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in patch.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and value:
            yield from _paths(value, path)
        else:
            yield path


# -- small things -----------------------------------------------------------------------------------------------------
def _spec(obj: JsonObject) -> JsonObject:
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def _labels(obj: JsonObject) -> dict[str, str]:
    labels = dig(obj, "metadata", "labels")
    return labels if isinstance(labels, dict) else {}


def _key(obj: JsonObject) -> tuple[str, str]:
    return metadata(obj, "namespace"), metadata(obj, "name")


def _called(kind: ResourceType, obj: JsonObject) -> str:
    return _words(kind, *_key(obj))


def _words(kind: ResourceType, namespace: str, name: str) -> str:
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"


def _goes(obj: JsonObject) -> bool:
    return dig(obj, "metadata", "deletionTimestamp") is not None


def _without(values: JsonObject, names: Iterable[str]) -> JsonObject:
    left_out = frozenset(names)
    return {key: value for key, value in values.items() if key not in left_out}
