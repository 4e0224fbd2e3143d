"""Policies, VMs, namespaces and ports become one ruleset; statuses say what came of it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from carmel.controllers.firewall import FirewallController
from carmel.controllers.runtime import Runtime
from carmel.errors import Refused
from carmel.network.firewall import MAX_ENTRIES, Connection, Decision, LabelledVm, PortBinding, PortKey, Why
from carmel.resources.base import JsonObject
from carmel.resources.core import EVENT, NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY, Action, Direction
from carmel.resources.registry import KINDS
from carmel.store.protocol import Store
from carmel.store.sqlite import SqliteStore
from tests.fakes.firewall import FakeFirewall, FakePorts

WEB = PortKey("default", "web-0")
CLIENT = ipaddress.ip_address("10.0.0.7")
HUGE = [
    {
        "peers": [{"vmSelector": {"matchLabels": {"vm": f"v{number}"}}} for number in range(128)],
        "ports": [{"port": number} for number in range(1, 301)],
    }
]
"""One rule, of two matches (IPv4 and IPv6) for each of its peers and ports."""


@dataclass
class Host:
    store: Store
    runtime: Runtime
    firewall: FakeFirewall
    ports: FakePorts
    controller: FirewallController

    async def apply(self, name: str, **spec: Any) -> None:
        await self.store.create(
            FIREWALL_POLICY,
            {
                "apiVersion": FIREWALL_POLICY.api_version,
                "kind": "FirewallPolicy",
                "metadata": {"name": name, "namespace": "default"},
                "spec": spec,
            },
        )

    async def settled(self, name: str, holds: Callable[[JsonObject], bool]) -> JsonObject:
        """The policy, once its status is as it should be."""
        async with asyncio.timeout(90), self.store.watch(FIREWALL_POLICY, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.object.name == name:
                    found = event.object.json()
                    if found.get("status") and holds(found["status"]):
                        return found
        raise AssertionError("the watch ended")

    def asks(self, port: int, peer: Any = CLIENT) -> Decision:
        return self.firewall.connect(WEB, Direction.INGRESS, Connection(peer, 6, port))


def port(name: str, address: str, labels: dict[str, str], interface: str | None) -> PortBinding:
    return PortBinding(PortKey("default", name), name, labels, (ipaddress.ip_address(address),), interface)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    store = await SqliteStore.open(tmp_path / "store.sqlite", kinds=KINDS)
    try:
        await store.create(NAMESPACE, {"metadata": {"name": "default"}})
        await store.create(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab", "labels": {"env": "lab"}}}
        )
        runtime = Runtime(store, "test")
        vms = [LabelledVm("default", "web", {"app": "web"})]
        firewall, ports = FakeFirewall(), FakePorts(port("web-0", "10.0.0.1", {"app": "web"}, "cmp0"), vms=vms)
        controller = FirewallController(runtime, firewall, ports)
        await runtime.start()
        yield Host(store, runtime, firewall, ports, controller)
        await runtime.stop()
    finally:
        await store.close()


def truth(status: JsonObject) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions") or []}


def message(policy: JsonObject, type_: str) -> str:
    return str(next(one["message"] for one in policy["status"]["conditions"] if one["type"] == type_))


async def test_a_policy_is_loaded_and_says_so(host: Host) -> None:
    await host.apply("web", vmSelector={"matchLabels": {"app": "web"}}, ingress=[{"ports": [{"port": 443}]}])
    status = (await host.settled("web", lambda one: truth(one).get("Ready") == ("True", "Loaded")))["status"]
    assert truth(status)["Effective"] == ("True", "InForce")
    assert truth(status)["Consistent"] == ("True", "EveryRuleDecides")
    assert (status["selectedVMs"], status["ports"], status["rules"]) == (1, 1, 1)
    assert host.asks(443).action is Action.ALLOW
    assert host.asks(80).why is Why.ISOLATED


async def test_counters_are_shown(host: Host) -> None:
    await host.apply("web", ingress=[{"name": "https", "ports": [{"port": 443}]}])
    await host.settled("web", lambda one: one.get("ports") == 1)
    host.asks(443)
    host.asks(443)
    host.controller.ports_changed()
    status = (await host.settled("web", lambda one: bool(one.get("counters"))))["status"]
    assert status["counters"] == [{"direction": "Ingress", "rule": "https", "packets": 2, "bytes": 120}]


async def test_a_deleted_policy_is_unloaded(host: Host) -> None:
    await host.apply("web", ingress=[])
    await host.settled("web", lambda one: one.get("ports") == 1)
    assert host.asks(80).action is Action.DENY
    await host.store.delete(FIREWALL_POLICY, "default", "web")
    await host.firewall.until(lambda: host.asks(80).why is Why.OPEN)


async def test_a_vm_that_comes_changes_what_its_peers_may(host: Host) -> None:
    await host.apply("web", ingress=[{"peers": [{"vmSelector": {"matchLabels": {"app": "proxy"}}}]}])
    await host.settled("web", lambda one: one.get("ports") == 1)
    assert host.asks(80).action is Action.DENY
    host.ports.ports.append(port("proxy-0", str(CLIENT), {"app": "proxy"}, None))
    host.ports.changed()
    await host.firewall.until(lambda: host.asks(80).action is Action.ALLOW)


async def test_nothing_is_loaded_where_there_is_no_port(host: Host) -> None:
    host.ports.ports.clear()
    await host.apply("web", ingress=[])
    policy = await host.settled("web", lambda one: bool(truth(one)))
    assert truth(policy["status"])["Ready"] == ("True", "NothingToLoad")
    assert truth(policy["status"])["Effective"] == ("False", "NoPortHere")
    assert host.firewall.loaded is None
    await host.controller.prepare()
    assert host.firewall.loaded is not None


async def test_a_policy_for_vms_on_a_smart_nic_says_where_it_is_in_force(host: Host) -> None:
    host.ports.ports.append(replace(port("db-0", "10.0.0.2", {"app": "db"}, None), smart_nic="dpu0"))
    host.ports.there.append(LabelledVm("default", "db", {"app": "db"}))
    await host.apply("db", vmSelector={"matchLabels": {"app": "db"}}, ingress=[])
    policy = await host.settled("db", lambda one: bool(truth(one)))
    assert truth(policy["status"])["Effective"] == ("Unknown", "OnSmartNIC")
    assert "SmartNIC dpu0" in message(policy, "Effective")
    assert (policy["status"]["selectedVMs"], policy["status"]["ports"]) == (1, 0)
    await host.apply("all", ingress=[])
    policy = await host.settled("all", lambda one: one.get("ports") == 1)
    assert truth(policy["status"])["Effective"] == ("True", "InForce")
    assert "SmartNIC dpu0" in message(policy, "Effective")


async def test_a_policy_for_nobody_and_rules_that_never_decide_are_shown(host: Host) -> None:
    await host.apply(
        "odd",
        vmSelector={"matchLabels": {"app": "none"}},
        ingress=[
            {"action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            {"name": "office", "peers": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 22}]},
        ],
    )
    policy = await host.settled("odd", lambda one: "Consistent" in truth(one))
    assert truth(policy["status"])["Effective"] == ("False", "SelectsNothing")
    assert truth(policy["status"])["Consistent"] == ("False", "RuleNeverDecides")
    assert "ingress[1] (office)" in message(policy, "Consistent")
    assert truth(policy["status"])["Ready"][0] == "True"


async def test_too_many_rules_close_instead_of_opening(host: Host) -> None:
    ports = [{"port": number} for number in range(1, 1025)]
    for number in range(3):
        others = [{"ipBlock": {"cidr": f"10.{number}.{rule}.0/24"}} for rule in range(24)]
        rules = [{"peers": others[4 * rule : 4 * rule + 4], "ports": ports} for rule in range(6)]
        await host.apply(f"huge-{number}", ingress=rules)
    policy = await host.settled("huge-2", lambda one: truth(one).get("Ready", ("", ""))[0] == "False")
    assert truth(policy["status"])["Ready"] == ("False", "TooManyRules")
    assert "65,536" in message(policy, "Ready")
    assert "get nothing through" in message(policy, "Ready")
    assert host.asks(80).why is Why.REFUSED
    # Once there is room it is loaded.
    await host.store.delete(FIREWALL_POLICY, "default", "huge-0")
    await host.settled("huge-2", lambda one: truth(one).get("Ready", ("", ""))[0] == "True")
    assert host.asks(80, ipaddress.ip_address("10.2.0.1")).action is Action.ALLOW


async def test_a_policy_that_is_too_large_by_itself_says_so(host: Host) -> None:
    await host.apply("huge", ingress=HUGE)
    policy = await host.settled("huge", lambda one: bool(truth(one)))
    assert truth(policy["status"])["Ready"] == ("False", "TooManyRules")
    assert message(policy, "Ready").startswith(
        "it makes 76,800 matches (peers times ports), a host holds 65,536. Until"
    )
    assert host.asks(80).why is Why.REFUSED


@pytest.mark.timeout(300)
async def test_a_hundred_thousand_rules_leave_the_others_loaded(host: Host) -> None:
    """What does not fit is not even compiled: it takes neither time nor memory."""
    web = {"vmSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 443}]}]}
    await host.apply("web", priority=1, **web)
    for policy in range(50):
        rules = [
            {"peers": [{"ipBlock": {"cidr": f"10.{policy}.{rule >> 3}.{(rule & 7) << 5}/27"}}]} for rule in range(2000)
        ]
        await host.apply(f"many-{policy:02}", vmSelector={"matchLabels": {"app": "db"}}, ingress=rules)
    last = await host.settled("many-49", lambda one: truth(one).get("Ready", ("", ""))[0] == "False")
    assert truth(last["status"])["Ready"] == ("False", "TooManyRules")
    first = await host.settled("many-00", lambda one: bool(truth(one)))
    assert truth(first["status"])["Ready"][0] == "True"
    assert host.asks(443).action is Action.ALLOW
    assert host.asks(80).why is Why.ISOLATED
    assert (
        sum(len(one.policy.chains[Direction.INGRESS].lookups[0].entries) for one in host.controller._compiled.values())
        <= MAX_ENTRIES
    )


async def test_a_policy_that_does_not_fit_closes_its_own_vms_only(host: Host) -> None:
    other = port("db-0", "10.0.0.2", {"app": "db"}, "cmp1")
    host.ports.ports.append(other)
    await host.apply("huge", vmSelector={"matchLabels": {"app": "db"}}, ingress=HUGE)
    await host.apply("web", vmSelector={"matchLabels": {"app": "web"}}, ingress=[{"ports": [{"port": 443}]}])
    await host.settled("web", lambda one: one.get("ports") == 1)
    await host.firewall.until(lambda: host.asks(443).action is Action.ALLOW)
    assert host.firewall.connect(other.key, Direction.INGRESS, Connection(CLIENT, 6, 443)).why is Why.REFUSED


async def test_policies_that_contradict_each_other_decide_in_their_order(host: Host) -> None:
    deny = [{"name": "no-web", "action": "Deny", "ports": [{"port": 443}]}]
    await host.apply("closed", priority=10, ingress=deny)
    await host.apply("open", priority=20, ingress=[{"ports": [{"port": 443}]}])
    await host.settled("open", lambda one: one.get("ports") == 1)
    await host.firewall.until(lambda: len(host.asks(443).policies) == 2)
    decision = host.asks(443)
    assert decision.action is Action.DENY
    assert decision.rule is not None
    assert decision.rule.name == "no-web"


async def test_what_somebody_else_changed_is_put_back_and_told(host: Host) -> None:
    await host.apply("web", ingress=[])
    await host.settled("web", lambda one: one.get("ports") == 1)
    host.firewall.lose("nft (process 7)")
    await host.firewall.until(lambda: host.firewall.loaded is not None)
    async with asyncio.timeout(90), host.store.watch(EVENT, send_initial=True) as events:
        async for event in events:
            if event.object is not None and event.object.json()["reason"] == "RulesPutBack":
                assert "nft (process 7)" in event.object.json()["message"]
                break


async def test_a_firewall_that_cannot_load_is_shown_on_each_policy(host: Host) -> None:
    host.firewall.broken = Refused("this kernel cannot", code="NoBridgeTracking", hint="use another")
    await host.apply("web", ingress=[])
    policy = await host.settled("web", lambda one: truth(one).get("Ready", ("", ""))[0] == "False")
    assert truth(policy["status"])["Ready"] == ("False", "NoBridgeTracking")
    assert message(policy, "Ready") == "this kernel cannot. Use another."
    with pytest.raises(Refused):
        await host.controller.prepare()
