"""A SmartNIC's ports in this kernel: ends of veth pairs stand for representors, their other ends for the functions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from carmel.network.dataplane import PortPlan, Rate
from tests.system.network.host.lab import Lab, Namespace, nat

INNER = nat()
MACS = [f"52:54:00:ca:01:0{number}" for number in range(3)]
PORTS = [
    PortPlan(f"vm-{n}", "eth0", "inner", MACS[n], addresses=(IPv4Address(f"10.77.0.1{n}"),), representor=f"pf0vf{n}")
    for n in range(3)
]


class Guests:
    """The functions, each in a namespace that stands for a VM."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.spaces: list[Namespace] = []

    async def make(self, count: int) -> None:
        for number in range(count):
            space = await self.lab.namespace(f"vm{number}")
            await self.lab.host.ip(f"link add pf0vf{number} type veth peer name eth0 netns {space.name}")
            await space.ip(f"link set eth0 address {MACS[number]}")
            await space.ip("link set eth0 up")
            await space.ip(f"addr add 10.77.0.1{number}/24 dev eth0")
            self.spaces.append(space)

    async def reaches(self, number: int, address: str) -> bool:
        words = ["busybox", "ping", "-c", "1", "-W", "1", address]
        # The first may be lost while neighbours are looked up.
        return any([(await self.spaces[number].run(*words, check=False)).status == 0 for _ in range(2)])


@pytest.fixture
async def guests(lab: Lab) -> Guests:
    made = Guests(lab)
    await made.make(2)
    return made


async def shown(space: Namespace, name: str) -> str:
    """All that ip and tc say of a link, but for counts and its neighbour."""
    link = (await space.run("ip", "-d", "link", "show", name)).text
    disciplines = (await space.run("tc", "qdisc", "show", "dev", name)).text
    addresses = (await space.run("ip", "addr", "show", name)).text
    return f"{link}\n{disciplines}\n{addresses}"


async def test_functions_reach_one_another_through_the_bridge_alone(lab: Lab, guests: Guests) -> None:
    assert not await guests.reaches(0, "10.77.0.11")
    await lab.plane.ensure_network(INNER)
    for port in PORTS[:2]:
        await lab.plane.attach(port)
    assert await guests.reaches(0, "10.77.0.11")
    assert await guests.reaches(0, "10.77.0.1")
    counts = await lab.plane.counters()
    assert counts[PORTS[0].interface].sent_packets > 0
    await lab.plane.detach(PORTS[1].interface)
    assert not await guests.reaches(0, "10.77.0.11")


async def test_the_source_guard_knows_the_functions_address(lab: Lab, guests: Guests) -> None:
    await lab.plane.ensure_network(INNER)
    for port in PORTS[:2]:
        await lab.plane.attach(port)
    assert await guests.reaches(0, "10.77.0.11")
    await guests.spaces[0].ip("addr add 10.77.0.66/24 dev eth0")
    words = ["busybox", "ping", "-c", "1", "-W", "1", "-I", "10.77.0.66", "10.77.0.11"]
    assert (await guests.spaces[0].run(*words, check=False)).status != 0
    await guests.spaces[0].ip("link set eth0 address 52:54:00:00:00:99")
    assert not await guests.reaches(0, "10.77.0.11")
    assert (await lab.plane.counters())[PORTS[0].interface].dropped_packets > 0


async def test_it_is_given_back_as_it_was_with_all_that_a_port_has(lab: Lab, guests: Guests) -> None:
    await lab.host.ip("link set pf0vf0 mtu 1450")
    before = await shown(lab.host, "pf0vf0")
    await lab.plane.ensure_network(replace(INNER, mtu=1400))
    port, other = replace(PORTS[0], ingress=Rate(8000), egress=Rate(8000)), PORTS[1]
    await lab.plane.attach(other)
    await lab.plane.attach(replace(port, mirror_to=other.interface))
    plugged = await shown(lab.host, port.interface)
    for sign in ("tbf", "clsact", "mtu 1400", ",UP", "4410700", "lent by pf0vf0 mtu 1450"):
        assert sign in plugged
    await lab.plane.detach(port.interface)
    assert await shown(lab.host, "pf0vf0") == before


async def test_after_kill_9_the_next_daemon_finds_it(lab: Lab, guests: Guests) -> None:
    await lab.plane.ensure_network(INNER)
    for port in PORTS[:2]:
        await lab.plane.attach(port)
    # Another data plane knows only what it is told, as after kill -9.
    await lab.restart()
    assert await guests.reaches(0, "10.77.0.11")
    await lab.plane.adopt([INNER], PORTS[:2])
    assert set(await lab.plane.counters()) == {port.interface for port in PORTS[:2]}
    assert await guests.reaches(0, "10.77.0.11")
    await lab.restart()
    await lab.plane.adopt([INNER], PORTS[1:2])
    assert "pf0vf0" in await lab.interfaces()
    assert not await guests.reaches(0, "10.77.0.11")


async def test_its_own_name_may_be_anothers_by_then(lab: Lab, guests: Guests) -> None:
    await lab.plane.ensure_network(INNER)
    await lab.plane.attach(PORTS[0])
    await lab.host.ip("link add pf0vf0 type veth peer name other0")
    await lab.plane.detach(PORTS[0].interface)
    names = await lab.interfaces()
    assert PORTS[0].interface not in names
    assert {"pf0vf0", "rep0"} <= names
