"""What a NIC should have, and what is missing for that."""

from __future__ import annotations

import copy
from typing import Any

from carmel.client.discovery import ResourceType
from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.schema import structural_schema
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS
from carmel.smartnic.mirror import MIRRORED_FROM, Difference, HostObjects, Verb, Wanted, compare, wanted_on
from carmel.smartnic.schemas import known_part

Store = dict[ResourceType, list[JsonObject]]


def obj(name: str, namespace: str | None = None, labels: dict[str, str] | None = None, **rest: Any) -> JsonObject:
    metadata: JsonObject = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7"}
    if namespace is not None:
        metadata["namespace"] = namespace
    if labels is not None:
        metadata["labels"] = labels
    return {"metadata": metadata, **rest}


def network(name: str, ref: str | None = None, data_plane: str = "SmartNIC") -> JsonObject:
    spec: JsonObject = {"provider": "bridge", "bridge": {"uplinks": ["p0"], "vlan": 7}, "dataPlane": data_plane}
    return obj(name, spec=spec | ({"smartNICRef": {"name": ref}} if ref else {}), status={"ports": 3})


def port(name: str, on: str = "lan", namespace: str = "default", chosen: str | None = None, **spec: Any) -> JsonObject:
    vm, _, nic = name.rpartition("-")
    whole = {
        "networkRef": {"name": on},
        "vmRef": {"name": vm},
        "nic": nic,
        "owner": f"uid-{vm}",
        "mac": "52:54:00:00:00:01",
        **spec,
    }
    status = {"smartNIC": chosen, "counters": {}} if chosen else {}
    made = obj(name, namespace, {"app": vm, "carmel.dev/host": "server-1"}, spec=whole, status=status)
    made["metadata"]["ownerReferences"] = [{"kind": "VirtualMachine", "name": vm}]
    return made


def host(**more: Any) -> HostObjects:
    have: dict[str, Any] = {
        "networks": [network("lan"), network("own", data_plane="Host")],
        "ports": [port("web-eth0"), port("db-eth0", "own")],
        "policies": [obj("allow", "default", spec={"vmSelector": {}}), obj("far", "other", spec={"vmSelector": {}})],
        "namespaces": [obj("default", labels={"team": "a"}), obj("other")],
        "smart_nics": [obj("dpu")],
    }
    return HostObjects(**{**have, **more})


def on_nic(wanted: Wanted) -> Store:
    """As the NIC has it when all was made."""
    return {
        kind: [copy.deepcopy(one) for one in wanted.get(kind, ())] for kind in (NAMESPACES, NETWORKS, POLICIES, PORTS)
    }


def empty() -> Store:
    return {NAMESPACES: [obj("default")], NETWORKS: [], POLICIES: [], PORTS: []}


def told(difference: Difference) -> list[tuple[str, str]]:
    return [(change.verb.value, change.called) for change in difference.changes]


def names(wanted: Wanted, kind: ResourceType) -> list[str]:
    return [one["metadata"]["name"] for one in wanted[kind]]


# -- what is wanted ---------------------------------------------------------------------------------------------------
def test_the_nic_gets_what_it_switches_and_what_matters_to_it() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    assert {kind.kind: names(wanted, kind) for kind in wanted} == {
        "Namespace": ["default"],
        "Network": ["lan"],
        "FirewallPolicy": ["allow"],
        "Port": ["web-eth0"],
    }
    (lan,) = wanted[NETWORKS]
    # There it switches itself.
    assert lan == {
        "metadata": {"name": "lan", "labels": {MIRRORED_FROM: "server-1"}},
        "spec": {"provider": "bridge", "bridge": {"uplinks": ["p0"], "vlan": 7}, "dataPlane": "Host"},
    }
    (web,) = wanted[PORTS]
    assert web["metadata"] == {
        "name": "web-eth0",
        "namespace": "default",
        "labels": {"app": "web", "carmel.dev/host": "server-1", MIRRORED_FROM: "server-1"},
    }
    assert "status" not in web


def test_the_wish_for_a_function_is_not_mirrored() -> None:
    wanted = wanted_on("dpu", "server-1", host(ports=[port("web-eth0", function="pf0vf9")]))
    assert "function" not in wanted[PORTS][0]["spec"]


def test_of_several_nics_each_has_its_own() -> None:
    have = host(
        smart_nics=[obj("dpu"), obj("other")],
        networks=[network("lan"), network("named", "other")],
        ports=[
            port("a-eth0", chosen="dpu"),
            port("b-eth0", chosen="other"),
            port("c-eth0"),
            port("d-eth0", "named"),
        ],
    )
    first, second = wanted_on("dpu", "server-1", have), wanted_on("other", "server-1", have)
    assert (names(first, NETWORKS), names(first, PORTS)) == (["lan"], ["a-eth0"])
    # Nobody has chosen one for c yet.
    assert (names(second, NETWORKS), names(second, PORTS)) == (["lan", "named"], ["b-eth0", "d-eth0"])


def test_what_is_being_deleted_is_wanted_no_more() -> None:
    going = port("web-eth0")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert wanted_on("dpu", "server-1", host(ports=[going]))[PORTS] == []


def test_what_is_plugged_in_stays_until_it_is_pulled_out() -> None:
    there = on_nic(wanted_on("dpu", "server-1", host()))
    web = port("web-eth0", chosen="dpu")
    web["status"]["function"] = "pf0vf0"
    # The network is the host's by now: port, policies and network are needed until the VM was given another NIC.
    switched = host(networks=[network("lan", data_plane="Host")], ports=[web])
    assert compare(wanted_on("dpu", "server-1", switched), there, "server-1").changes == ()
    del web["status"]["function"]
    assert [change.called for change in compare(wanted_on("dpu", "server-1", switched), there, "server-1").changes] == [
        "Port default/web-eth0",
        "FirewallPolicy default/allow",
        "Network lan",
    ]


# -- peers elsewhere --------------------------------------------------------------------------------------------------
def allowing(*peers: JsonObject, namespace: str = "default", direction: str = "ingress") -> JsonObject:
    return obj("allow", namespace, spec={"vmSelector": {}, direction: [{"peers": list(peers)}]})


def app(name: str) -> JsonObject:
    return {"vmSelector": {"matchLabels": {"app": name}}}


def having(made: JsonObject, *addresses: str) -> JsonObject:
    """As it was learned, or leased."""
    made["status"] |= {"dataPlane": "Host", "addresses": list(addresses)}
    return made


def remote(wanted: Wanted) -> dict[str, list[str]]:
    """By name the addresses of those ports that are elsewhere."""
    return {
        one["metadata"]["name"]: one["spec"]["addresses"] for one in wanted[PORTS] if one["spec"].get("remote") is True
    }


def test_a_peer_that_the_host_switches_is_there_with_its_addresses_alone() -> None:
    db = having(port("db-eth0", "own", vlan=3, limits={"ingress": {"kbps": 64}}), "10.0.0.9", "10.0.0.8")
    wanted = wanted_on("dpu", "server-1", host(ports=[port("web-eth0"), db], policies=[allowing(app("db"))]))
    (there,) = [one for one in wanted[PORTS] if one["metadata"]["name"] == "db-eth0"]
    assert there == {
        "metadata": {
            "name": "db-eth0",
            "namespace": "default",
            "labels": {"app": "db", "carmel.dev/host": "server-1", MIRRORED_FROM: "server-1"},
        },
        "spec": {
            "networkRef": {"name": "own"},
            "vmRef": {"name": "db"},
            "nic": "eth0",
            "owner": "uid-db",
            "mac": "52:54:00:00:00:01",
            "remote": True,
            "addresses": ["10.0.0.8", "10.0.0.9"],
        },
    }
    assert "remote" not in next(one for one in wanted[PORTS] if one["metadata"]["name"] == "web-eth0")["spec"]
    # The host's network is nothing to the NIC.
    assert names(wanted, NETWORKS) == ["lan"]


def test_only_those_that_a_policy_speaks_of_are_told() -> None:
    ports = [
        port("web-eth0"),
        having(port("db-eth0", "own"), "10.0.0.1"),
        having(port("mail-eth0", "own"), "10.0.0.2"),
        port("off-eth0", "own"),
        port("fixed-eth0", "own", addresses=["10.0.0.3"]),
    ]

    def told_of(*policies: JsonObject) -> list[str]:
        return list(remote(wanted_on("dpu", "server-1", host(ports=ports, policies=policies))))

    assert told_of(obj("all", "default", spec={"vmSelector": {}, "ingress": [{}]})) == []
    assert told_of(allowing({"ipBlock": {"cidr": "10.0.0.0/8"}})) == []
    assert told_of(allowing(app("db"), direction="egress")) == ["db-eth0"]
    # Who has no address cannot be known by one.
    assert told_of(allowing(app("off"), app("fixed"))) == ["fixed-eth0"]
    assert told_of(allowing({"vmSelector": {}})) == ["db-eth0", "mail-eth0", "fixed-eth0"]
    # Policies of namespaces that have no ports there are not there either.
    assert told_of(allowing(app("db"), namespace="other")) == []
    # What another version says does not keep from the rest.
    unknown = {"vmSelector": {"matchExpressions": [{"key": "app", "operator": "Resembles"}]}}
    assert told_of(allowing(unknown, app("mail"))) == ["mail-eth0"]


def test_peers_of_other_namespaces_come_with_those() -> None:
    ops = having(port("ops-eth0", "own", namespace="other"), "10.0.0.1")
    have = host(
        ports=[port("web-eth0"), ops],
        policies=[
            allowing({"namespaceSelector": {"matchLabels": {"team": "ops"}}, **app("ops")}),
            obj("theirs", "other", spec={"vmSelector": {}}),
        ],
        namespaces=[obj("default"), obj("other", labels={"team": "ops"}), obj("third", labels={"team": "ops"})],
    )
    wanted = wanted_on("dpu", "server-1", have)
    assert remote(wanted) == {"ops-eth0": ["10.0.0.1"]}
    assert (names(wanted, NAMESPACES), names(wanted, POLICIES)) == (["default", "other"], ["allow"])


def test_ports_of_another_smartnic_are_elsewhere() -> None:
    have = host(
        smart_nics=[obj("dpu"), obj("other")],
        ports=[port("a-eth0", chosen="dpu"), having(port("b-eth0", chosen="other"), "10.0.0.2")],
        policies=[allowing(app("a"), app("b"))],
    )
    assert remote(wanted_on("dpu", "server-1", have)) == {"b-eth0": ["10.0.0.2"]}
    # Of a's no address is known yet.
    assert remote(wanted_on("other", "server-1", have)) == {}


def test_a_vm_that_moves_onto_the_nic_is_remote_no_more_and_the_reverse() -> None:
    db, web = having(port("db-eth0", "own"), "10.0.0.9"), port("web-eth0")
    networks = [network("lan"), network("own")]
    software = host(ports=[web, db], policies=[allowing(app("db"))])
    offloaded = host(ports=[web, db], networks=networks, policies=[allowing(app("db"))])
    there = on_nic(wanted_on("dpu", "server-1", software))
    (_network, change) = compare(wanted_on("dpu", "server-1", offloaded), there, "server-1").changes
    assert (change.verb, change.body) == (Verb.UPDATE, {"spec": {"remote": None, "addresses": None}})
    there = on_nic(wanted_on("dpu", "server-1", offloaded))
    (change, *_network_too) = compare(wanted_on("dpu", "server-1", software), there, "server-1").changes
    assert (change.verb, change.body) == (Verb.UPDATE, {"spec": {"remote": True, "addresses": ["10.0.0.9"]}})


def test_an_address_that_changed_makes_it_stale() -> None:
    def have(*addresses: str) -> HostObjects:
        return host(
            ports=[port("web-eth0"), having(port("db-eth0", "own"), *addresses)], policies=[allowing(app("db"))]
        )

    there = on_nic(wanted_on("dpu", "server-1", have("10.0.0.1")))
    assert compare(wanted_on("dpu", "server-1", have("10.0.0.1")), there, "server-1") == Difference()
    (change,) = compare(wanted_on("dpu", "server-1", have("10.0.0.2")), there, "server-1").changes
    assert change.body == {"spec": {"addresses": ["10.0.0.2"]}}
    # A VM that is off has none that were learned: another may have that one by now.
    assert told(compare(wanted_on("dpu", "server-1", have()), there, "server-1")) == [
        ("delete", "Port default/db-eth0")
    ]


def test_who_is_denied_is_known_before_the_policy_and_until_it_went() -> None:
    have = host(ports=[port("web-eth0"), having(port("db-eth0", "own"), "10.0.0.1")], policies=[allowing(app("db"))])
    wanted = wanted_on("dpu", "server-1", have)
    assert told(compare(wanted, empty(), "server-1")) == [
        ("create", "Network lan"),
        ("create", "Port default/db-eth0"),
        ("create", "FirewallPolicy default/allow"),
        ("create", "Port default/web-eth0"),
    ]
    assert told(compare(wanted_on("dpu", "server-1", HostObjects()), on_nic(wanted), "server-1")) == [
        ("delete", "Port default/web-eth0"),
        ("delete", "FirewallPolicy default/allow"),
        ("delete", "Port default/db-eth0"),
        ("delete", "Network lan"),
    ]


# -- what is missing --------------------------------------------------------------------------------------------------
def test_ports_come_last_and_go_first() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    difference = compare(wanted, empty(), "server-1")
    assert told(difference) == [
        ("create", "Network lan"),
        ("create", "FirewallPolicy default/allow"),
        ("create", "Port default/web-eth0"),
    ]
    assert difference.notes == ("Namespace default is the NIC's own and stays as it is, though this host's differs",)
    gone = compare(wanted_on("dpu", "server-1", HostObjects()), on_nic(wanted), "server-1")
    assert told(gone) == [
        ("delete", "Port default/web-eth0"),
        ("delete", "FirewallPolicy default/allow"),
        ("delete", "Network lan"),
    ]


def test_nothing_to_do_is_nothing() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    there = on_nic(wanted)
    # What the NIC adds: defaults, status, what is plugged in, the name of a namespace.
    there[PORTS][0]["spec"] |= {"function": "pf0vf1", "sourceGuard": True}
    there[PORTS][0]["status"] = {"interface": "cmp0"}
    there[NETWORKS][0]["spec"]["bridge"]["takeover"] = False
    there[NAMESPACES][0]["metadata"]["labels"]["kubernetes.io/metadata.name"] = "default"
    assert compare(wanted, there, "server-1") == Difference()


def test_what_differs_is_changed_and_no_more() -> None:
    there = on_nic(wanted_on("dpu", "server-1", host()))
    there[PORTS][0]["spec"] |= {"function": "pf0vf1", "addresses": ["10.0.0.1"], "glow": True}
    changed = port("web-eth0", vlan=9)
    changed["metadata"]["labels"]["app"] = "api"
    (change,) = compare(wanted_on("dpu", "server-1", host(ports=[changed])), there, "server-1").changes
    assert (change.verb, change.called) == (Verb.UPDATE, "Port default/web-eth0")
    # What is plugged in stays, and so does what only the NIC's version knows.
    assert change.body == {"metadata": {"labels": {"app": "api"}}, "spec": {"addresses": None, "vlan": 9}}
    assert change.fields == ("metadata.labels.app", "spec.addresses", "spec.vlan")


def test_what_administrators_of_the_nic_made_is_theirs() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    there = on_nic(wanted)
    for kind in there:
        for one in there[kind]:
            del one["metadata"]["labels"][MIRRORED_FROM]
    # The same but for whose it is: nothing to say.
    assert compare(wanted, there, "server-1") == Difference()
    there[PORTS][0]["spec"]["vlan"] = 99
    there[POLICIES].append(obj("theirs", "default", spec={"vmSelector": {}}))
    difference = compare(wanted, there, "server-1")
    assert difference == Difference(
        (), ("Port default/web-eth0 is the NIC's own and stays as it is, though this host's differs",)
    )


def test_another_hosts_objects_are_not_removed() -> None:
    there = on_nic(wanted_on("dpu", "server-2", host()))
    assert compare(wanted_on("dpu", "server-1", HostObjects()), there, "server-1") == Difference()


def test_kinds_that_cannot_be_seen_are_left_out() -> None:
    there = empty()
    del there[POLICIES], there[NAMESPACES]
    assert told(compare(wanted_on("dpu", "server-1", host()), there, "server-1")) == [
        ("create", "Network lan"),
        ("create", "Port default/web-eth0"),
    ]


def test_objects_of_another_version_are_compared_as_they_are() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    there = on_nic(wanted)
    there[NETWORKS][0]["spec"]["provider"] = "quantum"
    (change,) = compare(wanted, there, "server-1").changes
    assert change.body["spec"]["provider"] == "bridge"


# -- versions that differ ---------------------------------------------------------------------------------------------
def test_what_an_older_nic_does_not_know_is_left_out_and_comes_to_an_end() -> None:
    """Its API drops the field: it would be missing for ever."""
    older = copy.deepcopy(structural_schema(NETWORK))
    del older["properties"]["spec"]["properties"]["mtu"]
    del older["properties"]["spec"]["properties"]["bridge"]["properties"]["vlan"]
    schemas = {"Network": older}
    lan = network("lan")
    lan["spec"]["mtu"] = 1400
    wanted = wanted_on("dpu", "server-1", host(networks=[lan]))
    first = compare(wanted, empty(), "server-1", schemas)
    (made,) = [change.body for change in first.changes if change.kind is NETWORKS]
    assert made["spec"] == {"provider": "bridge", "bridge": {"uplinks": ["p0"]}, "dataPlane": "Host"}
    assert first.left_out == ("Network lan: spec.bridge.vlan, spec.mtu",)
    there = on_nic(wanted)
    there[NETWORKS] = [made]
    assert compare(wanted, there, "server-1", schemas) == Difference(left_out=first.left_out)
    assert compare(wanted, there, "server-1").changes != ()


def test_what_only_a_newer_nic_knows_stays_as_it_is() -> None:
    wanted = wanted_on("dpu", "server-1", host())
    there = on_nic(wanted)
    there[NETWORKS][0]["spec"]["storms"] = {"kbps": 64}
    newer = copy.deepcopy(structural_schema(NETWORK))
    newer["properties"]["spec"]["properties"]["storms"] = {"type": "object"}
    assert compare(wanted, there, "server-1", {"Network": newer}) == Difference()


def test_lists_are_looked_into_and_free_forms_are_kept() -> None:
    schema = {
        "properties": {
            "rules": {"type": "array", "items": {"properties": {"port": {"type": "integer"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    }
    value = {"rules": [{"port": 80}, {"port": 81, "ttl": 3}], "labels": {"a": "b"}}
    kept = {"rules": [{"port": 80}, {"port": 81}], "labels": {"a": "b"}}
    assert known_part(schema, value) == (kept, ["rules[1].ttl"])


def test_a_nic_that_knows_no_remote_ports_gets_none() -> None:
    """There it would be a port like any other, for functions to be plugged into."""
    older = copy.deepcopy(structural_schema(PORT))
    del older["properties"]["spec"]["properties"]["remote"]
    schemas = {"Port": older}
    have = host(ports=[port("web-eth0"), having(port("db-eth0", "own"), "10.0.0.1")], policies=[allowing(app("db"))])
    wanted = wanted_on("dpu", "server-1", have)
    first = compare(wanted, empty(), "server-1", schemas)
    assert [change.name for change in first.changes if change.kind is PORTS] == ["web-eth0"]
    assert first.left_out == ("Port default/db-eth0: spec.remote",)
    # One that it got while it was newer goes.
    there = on_nic(wanted)
    assert told(compare(wanted, there, "server-1", schemas)) == [("delete", "Port default/db-eth0")]
