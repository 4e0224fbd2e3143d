"""The rules in a kernel that tracks connections on bridges: what is let through, what a change ends, and counters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from carmel.network.firewall import PolicyRef, RuleRef
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec
from tests.system.network.firewall.lab import NAMESPACE, Lab, lab

# One guest for all: it is emulated, and takes a while to boot.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def booted() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(booted: Lab) -> AsyncIterator[Lab]:
    yield booted
    await booted.unplug_all()


def policy(text: dict[str, object]) -> FirewallPolicySpec:
    return FirewallPolicySpec.model_validate(text)


def rule(name: str, direction: Direction, position: int, label: str | None = None) -> RuleRef:
    return RuleRef(PolicyRef(NAMESPACE, name), direction, position, label)


ONLY_A = {"vmSelector": {"matchLabels": {"vm": "a"}}}
ON_B = {"matchLabels": {"vm": "b"}}


async def test_a_port_is_closed_until_it_is_known(here: Lab) -> None:
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


async def test_what_a_policy_lets_through_and_counts(here: Lab) -> None:
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
                {"name": "no-ping", "action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.3/32"}}], "log": True},
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
    said = (await here.sh("dmesg | grep 'carmel Deny default/web ingress'")).text
    assert "SRC=10.0.0.3 DST=10.0.0.2" in said


async def test_a_change_ends_what_it_forbids_and_nothing_else(here: Lab) -> None:
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


async def test_a_connection_lives_on_when_its_server_speaks_first_after_a_change(here: Lab) -> None:
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


async def _open(here: Lab, port: int) -> None:
    """A connection from a to b that stays; what is written to the pipe is sent, what comes is kept."""
    await here.sh(
        f"mkfifo /tmp/to{port}; /opt/ip netns exec a nc 10.0.0.2 {port} <>/tmp/to{port} >/tmp/from{port} 2>&1 &"
    )


async def _says(here: Lab, port: int, word: str, seconds: float = 10) -> bool:
    """Whether the echo of ``word`` comes back."""
    await here.sh(f"echo {word} >/tmp/to{port}")
    return await _heard(here, port, word, seconds)


async def _heard(here: Lab, port: int, word: str, seconds: float = 10) -> bool:
    tries = int(seconds * 10)
    script = f"for i in $(seq {tries}); do grep -q {word} /tmp/from{port} && exit 0; sleep 0.1; done; exit 1"
    return (await here.sh(script, check=False)).status == 0
