"""Connections by the flows of Open vSwitch's datapath in user space. VMs are network stacks of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.network.dataplane import NetworkPlan, PortPlan, UplinkPlan
from carmel.network.firewall import PortBinding, PortKey
from carmel.network.ovs.packetlog import PacketLog
from carmel.network.user import mac_address
from carmel.run import Command, Result, SystemRunner
from tests.contract.connections import NAMESPACE, ConnectionsContract, Site, addresses_of
from tests.system.network.host.lab import Vm
from tests.system.network.ovs import server
from tests.system.network.ovs.conftest import OvsLab, SettledFirewall

_NETWORK = NetworkPlan("lan", uplink=UplinkPlan(("up0",)))


class Here(Site):
    """On this machine: what scripts call VMs and files of /tmp has names of its own here."""

    def __init__(self, lab: OvsLab, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(SettledFirewall(lab.switch, lab.ovs))
        self._lab = lab
        self._stack = stack
        self._vms: dict[str, Vm] = {}
        self._logged: list[str] = []
        lab.switch.packet_log = PacketLog(lab.switch.openflow, self._logged.append)

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

    async def logged(self) -> str:
        return "\n".join(self._logged)

    async def plug(self, name: str, *, known: bool = True) -> None:
        four, six = addresses_of(name)
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


class TestConnections(ConnectionsContract):
    """By Open vSwitch's flows."""
