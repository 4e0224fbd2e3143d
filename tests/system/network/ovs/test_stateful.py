"""Connections: what is let through, what a change ends, what is counted. By the same tests as nftables has, in which
VMs are network stacks of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.network.dataplane import NetworkPlan, PortPlan, UplinkPlan
from carmel.network.firewall import PolicyRef, PortBinding, PortKey, assemble, compile_policy
from carmel.network.user import mac_address
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec
from carmel.run import Command, Result, SystemRunner
from tests.full.firewall import test_stateful
from tests.full.firewall.test_stateful import ON_B, ONLY_A, policy, rule
from tests.system.network.firewall.lab import NAMESPACE, _addresses
from tests.system.network.firewall.lab import Lab as GuestLab
from tests.system.network.host.lab import Vm
from tests.system.network.ovs import server
from tests.system.network.ovs.conftest import OvsLab, SettledFirewall

_NETWORK = NetworkPlan("lan", uplink=UplinkPlan(("up0",)))


class Here(GuestLab):
    """The same, on this machine: scripts name VMs, and files of the guest's /tmp."""

    def __init__(self, lab: OvsLab, stack: contextlib.AsyncExitStack) -> None:
        self._lab = lab
        self._stack = stack
        self._vms: dict[str, Vm] = {}
        self.firewall = SettledFirewall(lab.switch, lab.ovs)  # type: ignore[assignment]
        self.bindings: list[PortBinding] = []

    async def sh(self, script: str, *, check: bool = True) -> Result:
        text = re.sub(
            r"/opt/ip netns exec (\w+) ",
            lambda found: f"nsenter --net={self._vms[found[1]].space.path} -- busybox ",
            script.replace("/tmp/", f"{self._lab.folder}/"),
        )
        text = re.sub(r"/opt/ip -n (\w+)", lambda found: f"ip -n {self._vms[found[1]].space.name}", text)
        before, _, last = text.rpartition("; ")
        if not last.endswith("&"):
            return await SystemRunner().run(Command(["sh", "-c", text]), check=check)
        # What stays is not the runner's, which leaves nothing of what it ran.
        result = await SystemRunner().run(Command(["sh", "-c", before or ":"]), check=check)
        process = await asyncio.create_subprocess_exec("sh", "-c", f"exec {last.removesuffix('&')}")
        self._stack.push_async_callback(_end, process)
        return result

    async def plug(self, name: str, *, known: bool = True) -> None:
        four, six = _addresses(name)
        addresses = (ipaddress.ip_address(four), ipaddress.ip_address(six))
        vm = await self._lab.boot(PortPlan(name, "eth0", "lan", mac_address(name, "eth0"), addresses=addresses))
        await vm.space.ip(f"addr add {four}/24 dev eth0")
        await vm.space.ip(f"addr add {six}/64 dev eth0 nodad")
        self._vms[name] = vm
        if known:
            self.know(name)

    def know(self, name: str) -> None:
        port = self._vms[name].port
        self.bindings.append(PortBinding(PortKey(NAMESPACE, name), name, {"vm": name}, port.addresses, port.interface))

    async def load(self, **policies: FirewallPolicySpec) -> None:
        compiled = [compile_policy(PolicyRef(NAMESPACE, name), spec) for name, spec in policies.items()]
        await self.firewall.load(assemble(compiled, self.bindings, {NAMESPACE: {}}))


@pytest.fixture
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Here]:
    if why := server.missing():
        pytest.skip(why)
    async with contextlib.AsyncExitStack() as stack:
        lab = OvsLab(Path(tmp_path_factory.mktemp("net")), stack)
        lab.firewalled = True
        await lab.prepare()
        await lab.plane.ensure_network(_NETWORK)
        yield Here(lab, stack)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


test_a_port_is_closed_until_it_is_known = test_stateful.test_a_port_is_closed_until_it_is_known
test_a_change_ends_what_it_forbids = test_stateful.test_a_change_ends_what_it_forbids_and_nothing_else
test_a_connection_lives_on_when_its_server_speaks_first = (
    test_stateful.test_a_connection_lives_on_when_its_server_speaks_first_after_a_change
)


async def test_what_a_policy_lets_through_and_counts(here: Here) -> None:
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
