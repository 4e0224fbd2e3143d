"""From what the API tells of a SmartNIC, its Ports and Networks to the scene that a picture shows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from carmel.cli.text import safe
from carmel.client.objects import JsonObject, condition, dig, metadata
from carmel.units import human_bytes

_HOST = "host"
"""Owner of a port that is no VM's but a bare machine's."""
_VFIO = "vfio-pci"
"""The driver of a function that is passed through."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One function, from who has it on the host to where its frames leave the NIC. Empty: there is none, or it is not
    known. ``up``: its representor is. ``note``: why it cannot be used. Behind an NVMe function is a namespace, in the
    place of a representor, and ``network`` is what that is."""

    function: str
    kind: str
    state: str
    vm: str = ""
    address: str = ""
    mac: str = ""
    node: str = ""
    representor: str = ""
    up: bool | None = None
    network: str = ""
    uplink: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A way out of the NIC. ``networks`` are those that leave by it."""

    name: str
    up: bool
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NicScene:
    """``facts``: what the NIC is, in words that stand behind its name. ``wrong``: why it is not ready. ``networks``:
    who switches which, ``unshown``: namespaces that no function shows, a sentence each."""

    name: str
    host: str
    facts: tuple[str, ...]
    seats: tuple[Seat, ...]
    uplinks: tuple[Uplink, ...]
    networks: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()
    wrong: str = ""


def nic_scene(smart_nic: JsonObject, ports: Iterable[JsonObject], networks: Sequence[JsonObject]) -> NicScene:
    """``ports`` and ``networks`` are all that the API has: the host's, or the NIC's own, where all are the NIC's."""
    name, status = metadata(smart_nic, "name"), smart_nic.get("status") or {}
    # What a host's daemon speaks to has an address, and that host; the NIC does not speak to itself.
    own = not dig(smart_nic, "spec", "address") and not dig(status, "host", "name")
    mine = {_key(one): one for one in ports if own or dig(one, "status", "smartNIC") == name}
    offloaded = {metadata(one, "name"): one for one in networks if own or _switched_by(one, name)}
    representors = {str(one.get("name")): one for one in status.get("representors") or ()}
    namespaces = status.get("namespaces") or ()
    shown = {one["function"]: one for one in namespaces if one.get("function")}
    seats = tuple(
        _drive(one, shown.get(str(one.get("id")), {}))
        if one.get("kind") == "nvme"
        else _seat(one, mine, offloaded, representors)
        for one in status.get("functions") or ()
    )
    ready = condition(smart_nic, "Ready")
    return NicScene(
        name=safe(name),
        host=safe(dig(status, "host", "name") or ""),
        facts=tuple(_facts(status)),
        seats=seats,
        uplinks=tuple(_uplinks(representors.values(), offloaded.values())),
        networks=tuple(_who_switches(networks, offloaded)),
        unshown=tuple(f"{_name(one)}: {_namespace(one)}" for one in namespaces if not one.get("function")),
        wrong=""
        if ready.get("status") == "True"
        else safe(ready.get("message") or ready.get("reason") or "not looked at"),
    )


def _facts(status: Mapping[str, object]) -> Iterable[str]:
    for key, word in (
        ("model", "{}"),
        ("serial", "serial {}"),
        ("mode", "mode {}"),
        ("trust", "trust {}"),
        ("carmelVersion", "Carmel {}"),
    ):
        value = status.get(key)
        if value:
            yield safe(word.format(value))
    if status.get("hardwareOffload"):
        yield "flows in hardware"


def _seat(
    function: JsonObject,
    ports: Mapping[str, JsonObject],
    networks: Mapping[str, JsonObject],
    representors: Mapping[str, JsonObject],
) -> Seat:
    owner = function.get("owner") or {}
    port = ports.get(f"{owner.get('namespace')}/{owner.get('name')}", {}) if owner.get("kind") == "Port" else {}
    network = networks.get(str(dig(port, "spec", "networkRef", "name")), {})
    representor = str(function.get("representor") or "")
    node = function.get("numaNode")
    return Seat(
        function=safe(function.get("id") or ""),
        kind=safe(function.get("kind") or ""),
        state=safe(function.get("state") or ""),
        vm=_owner(owner, port, software=function.get("driver") not in {None, _VFIO}),
        address=safe(function.get("pciAddress") or ""),
        mac=safe(function.get("mac") or ""),
        node="" if node is None else safe(node),
        representor=safe(representor),
        up=dig(representors.get(representor), "up"),
        network=_network_of(port, network),
        uplink=safe(" ".join(dig(network, "spec", "bridge", "uplinks") or ())),
        note=safe(function.get("message") or ""),
    )


def _drive(function: JsonObject, namespace: JsonObject) -> Seat:
    """An NVMe function, with what it shows."""
    node = function.get("numaNode")
    return Seat(
        function=safe(function.get("id") or ""),
        kind="nvme",
        state=safe(function.get("state") or ""),
        vm=_who_may(namespace) if namespace else "",
        address=safe(function.get("pciAddress") or ""),
        node="" if node is None else safe(node),
        representor=_name(namespace),
        network=_namespace(namespace) if namespace else "",
        note=safe(function.get("message") or ""),
    )


def _name(namespace: JsonObject) -> str:
    return safe(namespace.get("name") or "")


def _namespace(namespace: JsonObject) -> str:
    size = namespace.get("sizeBytes")
    whole = human_bytes(size) if isinstance(size, int) else "size not known"
    return f"{whole}, {safe(namespace.get('state') or 'Connecting')}"


def _who_may(namespace: JsonObject) -> str:
    owner = namespace.get("owner") or {}
    if not owner:
        return "the host itself"
    space, name = owner.get("namespace"), owner.get("name")
    return safe(name if space == "default" else f"{space}/{name}")


def _owner(owner: JsonObject, port: JsonObject, *, software: bool) -> str:
    """``software``: the host's kernel has the function, and the guest a virtio NIC."""
    if not owner:
        return ""
    if not port:
        space = f"{owner.get('namespace')}/" if owner.get("namespace") else ""
        return safe(f"{owner.get('kind')} {space}{owner.get('name')}")
    if dig(port, "spec", "owner") == _HOST:
        return "the host itself"
    space = metadata(port, "namespace")
    vm = f"{dig(port, 'spec', 'vmRef', 'name')}/{dig(port, 'spec', 'nic')}"
    return safe((vm if space == "default" else f"{space}/{vm}") + (" (virtio)" if software else ""))


def _network_of(port: JsonObject, network: JsonObject) -> str:
    name = dig(port, "spec", "networkRef", "name")
    if not name:
        return ""
    vlan = dig(port, "spec", "vlan") or dig(network, "spec", "bridge", "vlan")
    trunk = dig(port, "spec", "trunk")
    more = f" +{len(trunk)} VLANs" if trunk else ""
    return safe(f"{name} (VLAN {vlan}{more})" if vlan else f"{name}{more}")


def _uplinks(representors: Iterable[JsonObject], networks: Iterable[JsonObject]) -> Iterable[Uplink]:
    known = list(networks)
    for one in representors:
        if one.get("flavour") != "physical":
            continue
        name = str(one.get("name"))
        leaving = (metadata(net, "name") for net in known if name in (dig(net, "spec", "bridge", "uplinks") or ()))
        yield Uplink(safe(name), bool(one.get("up")), tuple(map(safe, leaving)))


def _who_switches(networks: Iterable[JsonObject], by_nic: Container[str]) -> Iterable[str]:
    for network in networks:
        called = safe(metadata(network, "name"))
        backend = dig(network, "status", "backend")
        by = f" ({safe(backend)})" if backend else ""
        if metadata(network, "name") in by_nic:
            ready = condition(network, "Ready")
            wrong = "" if ready.get("status") == "True" else f": {safe(ready.get('message') or 'not looked at')}"
            yield f"{called}: by this NIC{by}{wrong}"
        elif dig(network, "spec", "dataPlane") == "SmartNIC":
            yield f"{called}: by SmartNIC {safe(dig(network, 'spec', 'smartNICRef', 'name'))}"
        else:
            yield f"{called}: by the host{by}"


def _switched_by(network: JsonObject, name: str) -> bool:
    spec = network.get("spec") or {}
    return spec.get("dataPlane") == "SmartNIC" and dig(spec, "smartNICRef", "name") in {None, name}


def _key(obj: JsonObject) -> str:
    return f"{metadata(obj, 'namespace')}/{metadata(obj, 'name')}"
