"""What every firewall promises of connections: what is let through, what a change ends, and what is counted.

Run by a class that has a fixture ``here``: a ``Site`` with no VMs in it yet.
"""

from __future__ import annotations

import asyncio
import ipaddress
from abc import ABC, abstractmethod

from carmel.network.firewall import (
    FirewallDataPlane,
    PolicyRef,
    PortBinding,
    PortKey,
    RuleRef,
    assemble,
    compile_policy,
)
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec
from carmel.run import Result

NAMESPACE = "default"
ONLY_A = {"vmSelector": {"matchLabels": {"vm": "a"}}}
ON_B = {"matchLabels": {"vm": "b"}}


class Site(ABC):
    """A switch with a firewall, and network namespaces that stand for its VMs.

    VMs are named by a letter: ``a`` has the address 10.0.0.1 and fd00::1, ``b`` 10.0.0.2 and fd00::2.
    """

    def __init__(self, firewall: FirewallDataPlane) -> None:
        self.firewall = firewall
        self.bindings: list[PortBinding] = []

    @abstractmethod
    async def sh(self, script: str, *, check: bool = True) -> Result:
        """Run ``script`` where the VMs are: /opt/ip is iproute2's ``ip``, and a VM's network namespace has its name."""

    @abstractmethod
    async def logged(self) -> str:
        """What rules that log have told since the site was made, or all that the kernel did."""

    @abstractmethod
    async def plug(self, name: str, *, known: bool = True) -> None:
        """Make the VM ``name`` and plug it into the switch; ``known``: to the firewall too, from its next load on."""

    def know(self, name: str) -> None:
        addresses = tuple(ipaddress.ip_address(one) for one in addresses_of(name))
        self.bindings.append(PortBinding(PortKey(NAMESPACE, name), name, {"vm": name}, addresses, f"cmp{name}"))

    def interface(self, name: str) -> str | None:
        """Of a VM that the firewall knows."""
        return next(one.interface for one in self.bindings if one.vm == name)

    async def load(self, **policies: FirewallPolicySpec) -> None:
        compiled = [compile_policy(PolicyRef(NAMESPACE, name), spec) for name, spec in policies.items()]
        await self.firewall.load(assemble(compiled, self.bindings, {NAMESPACE: {}}))

    async def serve(self, name: str, port: int) -> None:
        """An echo server."""
        await self.sh(f"/opt/ip netns exec {name} nc -ll -p {port} -e /bin/cat >/dev/null 2>&1 </dev/null &")
        await self.listening(name, port)

    async def listening(self, name: str, port: int) -> None:
        seen = f"/opt/ip netns exec {name} netstat -ltn | grep -q ':{port} '"
        await self.sh(f"for i in $(seq 100); do {seen} && exit 0; sleep 0.05; done; exit 1")

    async def connects(self, name: str, address: str, port: int) -> bool:
        script = f"echo hello | timeout 3 /opt/ip netns exec {name} nc -w 2 {address} {port} | grep -q hello"
        return (await self.sh(script, check=False)).status == 0

    async def pings(self, name: str, address: str) -> bool:
        script = f"/opt/ip netns exec {name} ping -c 1 -W 1 {address}"
        return (await self.sh(script, check=False)).status == 0


def addresses_of(name: str) -> tuple[str, str]:
    number = ord(name) - ord("a") + 1
    return f"10.0.0.{number}", f"fd00::{number}"


def policy(text: dict[str, object]) -> FirewallPolicySpec:
    return FirewallPolicySpec.model_validate(text)


def rule(name: str, direction: Direction, position: int, label: str | None = None) -> RuleRef:
    return RuleRef(PolicyRef(NAMESPACE, name), direction, position, label)


class ConnectionsContract:
    """Connections between VMs, and what becomes of them."""

    async def test_a_port_is_closed_until_it_is_known(self, here: Site) -> None:
        await here.plug("a")
        await here.load()
        await here.plug("b", known=False)
        assert not await here.pings("a", "10.0.0.2")
        assert not await here.pings("b", "10.0.0.1")
        await here.sh("/opt/ip -n a neigh flush dev eth0; /opt/ip -n b neigh flush dev eth0")
        here.know("b")
        await here.load()
        assert await here.pings("a", "10.0.0.2")
        assert await here.pings("a", "fd00::2")

    async def test_what_a_policy_lets_through_and_counts(self, here: Site) -> None:
        for name in "abc":
            await here.plug(name)
        await here.serve("b", 80)
        await here.serve("b", 81)
        await here.load()
        assert await here.connects("c", "10.0.0.2", 81)
        web = policy(
            {
                "vmSelector": ON_B,
                "ingress": [
                    {"peers": [ONLY_A], "ports": [{"port": 80}]},
                    {"name": "no-ping", "action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.3/32"}}]},
                    {"peers": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"protocol": "ICMP"}]},
                ],
            }
        )
        await here.load(web=web)
        assert await here.connects("a", "10.0.0.2", 80)
        assert await here.connects("a", "fd00::2", 80)
        assert not await here.connects("a", "10.0.0.2", 81)
        assert not await here.connects("c", "10.0.0.2", 80)
        assert not await here.connects("c", "fd00::2", 80)
        assert await here.pings("a", "10.0.0.2")
        assert not await here.pings("c", "10.0.0.2")
        # It is about who comes to b only: b may go anywhere, and gets its answers.
        assert await here.pings("b", "10.0.0.3")
        counted = await here.firewall.counters()
        # Of a connection that is allowed, its first packet.
        assert counted[rule("web", Direction.INGRESS, 0)].packets == 2
        assert counted[rule("web", Direction.INGRESS, 2)].packets == 1
        # Of what is denied, every packet: the attempts of a connection, and the ping.
        assert counted[rule("web", Direction.INGRESS, 1, "no-ping")].packets >= 2

    async def test_what_rules_log_is_told(self, here: Site) -> None:
        for name in "abc":
            await here.plug(name)
        await here.serve("b", 80)
        deny = {"action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.3/32"}}]}
        rules = [deny, {"peers": [ONLY_A], "log": True}]
        await here.load(web=policy({"vmSelector": ON_B, "ingress": rules}))
        assert not await here.pings("c", "10.0.0.2")
        assert not await _lines(here, "Deny", "10.0.0.3")
        rules[0] = {**deny, "log": True}
        await here.load(web=policy({"vmSelector": ON_B, "ingress": rules}))
        # Who tells may be there a moment after the rules.
        async with asyncio.timeout(20):
            while not await _lines(here, "Deny default/web ingress[0]", "10.0.0.3"):
                assert not await here.pings("c", "10.0.0.2")
        # Of what is allowed, a line a connection, though each has several packets that are judged.
        assert await here.connects("a", "10.0.0.2", 80)
        assert await here.connects("a", "10.0.0.2", 80)
        async with asyncio.timeout(20):
            while len(await _lines(here, "Allow default/web ingress[1]", "10.0.0.1")) < 2:
                assert not await here.pings("c", "10.0.0.2")
        await here.load(web=policy({"vmSelector": ON_B, "ingress": [*rules, {"ports": [{"port": 7}]}]}))
        assert not await here.pings("c", "10.0.0.2")
        assert len(await _lines(here, "Allow", "10.0.0.1")) == 2

    async def test_a_change_ends_what_it_forbids_and_nothing_else(self, here: Site) -> None:
        for name in "ab":
            await here.plug(name)
        for port in (80, 81):
            await here.serve("b", port)
        both = policy({"vmSelector": ON_B, "ingress": [{"ports": [{"port": 80}, {"port": 81}]}]})
        await here.load(web=both)
        for port in (80, 81):
            await _open(here, port)
            assert await _says(here, port, "before")
        one = policy({"vmSelector": ON_B, "ingress": [{"ports": [{"port": 81}]}]})
        await here.load(web=one)
        assert not await _says(here, 80, "after", seconds=2)
        assert await _says(here, 81, "after")
        # Allowed again, the connection is alive again: TCP asks until it is answered.
        await here.load(web=both)
        assert await _heard(here, 80, "after", seconds=20)

    async def test_a_connection_lives_on_when_its_server_speaks_first_after_a_change(self, here: Site) -> None:
        for name in "ab":
            await here.plug(name)
        await here.sh("mkfifo /tmp/said")
        await here.sh("/opt/ip netns exec b sh -c 'nc -l -p 90 <>/tmp/said' >/dev/null 2>&1 &")
        await here.listening("b", 90)
        spec: dict[str, object] = {"ingress": [{"peers": [ONLY_A], "ports": [{"port": 90}]}], "egress": []}
        out: dict[str, object] = {"egress": [{"peers": [{"vmSelector": ON_B}], "ports": [{"port": 90}]}]}
        await here.load(server=policy({"vmSelector": ON_B, **spec}), client=policy({**ONLY_A, **out}))
        await _open(here, 90)
        await here.sh("echo one >/tmp/said")
        assert await _heard(here, 90, "one")
        spec["ingress"] = [*spec["ingress"], {"ports": [{"port": 7}]}]  # type: ignore[misc]
        await here.load(server=policy({"vmSelector": ON_B, **spec}), client=policy({**ONLY_A, **out}))
        await here.sh("echo two >/tmp/said")
        assert await _heard(here, 90, "two")
        # Isolated for both directions, and nobody lets it begin a connection.
        assert not await here.pings("b", "10.0.0.1")


async def _lines(here: Site, decision: str, source: str) -> list[str]:
    """Of the log: what went from ``source`` to b."""
    words = (f"carmel {decision}", f" OUT={here.interface('b')} ", source, "10.0.0.2")
    return [line for line in (await here.logged()).splitlines() if all(word in line for word in words)]


async def _open(here: Site, port: int) -> None:
    """A connection from a to b that stays; what is written to the pipe is sent, what comes is kept."""
    await here.sh(
        f"mkfifo /tmp/to{port}; /opt/ip netns exec a nc 10.0.0.2 {port} <>/tmp/to{port} >/tmp/from{port} 2>&1 &"
    )


async def _says(here: Site, port: int, word: str, seconds: float = 10) -> bool:
    """Whether the echo of ``word`` comes back."""
    await here.sh(f"echo {word} >/tmp/to{port}")
    return await _heard(here, port, word, seconds)


async def _heard(here: Site, port: int, word: str, seconds: float = 10) -> bool:
    tries = int(seconds * 10)
    script = f"for i in $(seq {tries}); do grep -q {word} /tmp/from{port} && exit 0; sleep 0.1; done; exit 1"
    return (await here.sh(script, check=False)).status == 0
