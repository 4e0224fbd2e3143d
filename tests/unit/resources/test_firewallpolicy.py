"""What a FirewallPolicy may say, and what is refused with which field."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.errors import Invalid
from carmel.resources.admission import admit
from carmel.resources.firewallpolicy import FIREWALL_POLICY, Direction, FirewallPolicySpec, IpBlock
from carmel.resources.labelselector import LabelSelector


def admitted(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = admit(
        FIREWALL_POLICY, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}, None
    )
    return found


def fields(**spec: Any) -> list[str]:
    with pytest.raises(Invalid) as raised:
        admitted(**spec)
    return [one.field for one in raised.value.causes]


def rule(**words: Any) -> dict[str, Any]:
    return {"ingress": [words]}


def test_a_whole_policy_is_kept() -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
    one = {"name": "web", "action": "Deny", "peers": [{"ipBlock": block}], "ports": [{"port": 80, "endPort": 90}]}
    spec = admitted(vmSelector={"matchLabels": {"app": "web"}}, ingress=[one], priority=7)["spec"]
    assert spec["ingress"][0]["peers"] == [{"ipBlock": block}]
    assert spec["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 80, "endPort": 90}]
    assert spec["priority"] == 7


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"peers": [{}]}, "spec.ingress[0].peers[0]"),
        ({"peers": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "vmSelector": {}}]}, "spec.ingress[0].peers[0]"),
        (
            {"peers": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]},
            "spec.ingress[0].peers[0].ipBlock.except[0]",
        ),
        (
            {"peers": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}}]},
            "spec.ingress[0].peers[0].ipBlock.except[0]",
        ),
        ({"ports": [{"protocol": "ICMP", "port": 8}]}, "spec.ingress[0].ports[0].port"),
        ({"ports": [{"endPort": 8}]}, "spec.ingress[0].ports[0].endPort"),
        ({"ports": [{"port": 9, "endPort": 8}]}, "spec.ingress[0].ports[0].endPort"),
        ({"ports": [{"port": 65536}]}, "spec.ingress[0].ports[0].port"),
        ({"ports": [{"port": 0}]}, "spec.ingress[0].ports[0].port"),
        ({"action": "Reject"}, "spec.ingress[0].action"),
        ({"name": "Not a name"}, "spec.ingress[0].name"),
    ],
)
def test_rules_that_mean_nothing_are_refused(words: dict[str, Any], field: str) -> None:
    assert field in fields(**rule(**words))


@pytest.mark.parametrize(
    "cidr",
    ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "fe80::%eth0/64", "web", "/8", "::/129", "10.0/16"],
)
def test_networks_that_are_none_are_refused(cidr: str) -> None:
    assert fields(**rule(peers=[{"ipBlock": {"cidr": cidr}}])) == ["spec.ingress[0].peers[0].ipBlock.cidr"]


def test_policies_that_contradict_themselves_are_refused() -> None:
    assert fields(policyTypes=["Egress"], ingress=[{}]) == ["spec.ingress"]
    assert fields(ingress=[{"name": "a"}, {}, {"name": "a"}]) == ["spec.ingress[2].name"]
    assert fields(priority=65536) == ["spec.priority"]
    assert fields(vmSelector={"matchExpressions": [{"key": "app", "operator": "In"}]})
    assert fields(vmSelector={"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]})


def test_directions_are_those_of_network_policy() -> None:
    def of(**words: Any) -> tuple[Direction, ...]:
        return FirewallPolicySpec.model_validate(words).directions

    assert of() == (Direction.INGRESS,)
    assert of(egress=[]) == (Direction.INGRESS, Direction.EGRESS)
    assert of(policyTypes=["Egress"]) == (Direction.EGRESS,)
    assert of(policyTypes=[]) == ()


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "web", "x": "y"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, {}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, {"app": "db"}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, {"app": "web"}, False),
        (
            {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]},
            {"app": "web"},
            False,
        ),
    ],
)
def test_selectors_match_as_in_kubernetes(selector: dict[str, Any], labels: dict[str, str], *, matches: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(labels) is matches


texts = st.from_regex(
    r"([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{0,4}|[0-9a-f:]{2,20}(\.[0-9.]{3})?/[0-9]{0,4}", fullmatch=True
)
networks = st.ip_addresses().flatmap(
    lambda one: st.integers(0, one.max_prefixlen).map(lambda length: str(ipaddress.ip_network((one, length), False)))
)


@given(texts | networks)
def test_networks_are_those_that_ipaddress_knows(text: str) -> None:
    try:
        ipaddress.ip_network(text)
        known = text.partition("/")[2] != ""
    except ValueError:
        known = False
    try:
        IpBlock(cidr=text)
        taken = True
    except ValueError:
        taken = False
    assert taken == known
