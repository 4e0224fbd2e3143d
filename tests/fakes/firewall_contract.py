"""What any firewall's data plane does, fake or real."""

from __future__ import annotations

import ipaddress
from typing import Protocol

from carmel.network.firewall import (
    Connection,
    FirewallDataPlane,
    PolicyRef,
    PortBinding,
    PortKey,
    RuleRef,
    Ruleset,
    assemble,
    compile_policy,
)
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec

PORT = PortBinding(PortKey("default", "web"), "web", {"app": "web"}, (ipaddress.ip_address("10.0.0.1"),), "cmp0")
POLICY = PolicyRef("default", "web")
PEER = ipaddress.ip_address("10.0.0.7")


class Subject(Protocol):
    """A data plane with ``PORT`` plugged in."""

    @property
    def firewall(self) -> FirewallDataPlane: ...

    def passes(self, direction: Direction, connection: Connection) -> bool:
        """Whether a packet that begins ``connection`` comes through."""
        ...


def rules(*ports: int, vms: int = 1) -> Ruleset:
    """What may come to ``PORT``; there may be more VMs, of which the rules know as peers."""
    more = [
        PortBinding(PortKey("default", f"v{number}"), f"v{number}", {}, (PORT.addresses[0] + number,), f"cmp{number}")
        for number in range(1, vms)
    ]
    peers = {"peers": [{"vmSelector": {"matchLabels": {"app": "web"}}}], "action": "Deny"}
    ingress = [{"ports": [{"port": port}]} for port in ports]
    spec = FirewallPolicySpec.model_validate({"ingress": [*ingress, peers]})
    return assemble([compile_policy(POLICY, spec)], [PORT, *more], {})


def comes(subject: Subject, port: int) -> bool:
    return subject.passes(Direction.INGRESS, Connection(PEER, 6, port))


async def what_is_loaded_is_in_force(subject: Subject) -> None:
    await subject.firewall.load(rules(80))
    assert comes(subject, 80)
    assert not comes(subject, 81)
    assert subject.passes(Direction.EGRESS, Connection(PEER, 17, 53))
    await subject.firewall.load(rules(81))
    assert not comes(subject, 80)
    assert comes(subject, 81)


async def what_rules_decide_is_counted(subject: Subject) -> None:
    await subject.firewall.load(rules(80, 81))
    assert await subject.firewall.counters() == {}
    for port in (80, 81, 81, 82):
        comes(subject, port)
    counted = await subject.firewall.counters()
    assert {rule: count.packets for rule, count in counted.items()} == {
        RuleRef(POLICY, Direction.INGRESS, 0, None): 1,
        RuleRef(POLICY, Direction.INGRESS, 1, None): 2,
    }
    # A rule beside them changes nothing about what was counted.
    await subject.firewall.load(rules(80, 81, 83))
    assert await subject.firewall.counters() == counted
    assert all(count.bytes >= 40 * count.packets for count in counted.values())


async def what_is_removed_is_gone(subject: Subject) -> None:
    await subject.firewall.load(rules(80))
    await subject.firewall.remove()
    assert await subject.firewall.counters() == {}
    await subject.firewall.remove()
    await subject.firewall.load(rules(80))
    assert comes(subject, 80)


CONTRACT = (what_is_loaded_is_in_force, what_rules_decide_is_counted, what_is_removed_is_gone)
