"""A lab for each test, whose host switches by Open vSwitch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from carmel.network.firewall import Count, RuleRef, Ruleset
from carmel.network.ovs.dataplane import OvsDataPlane
from carmel.network.ovs.firewall import OvsFirewall
from carmel.network.ovs.switch import Switch
from carmel.run import SystemRunner
from tests.system.network.host.lab import Lab
from tests.system.network.ovs import server

_PROGRAMS = ("ip", "nft", "dnsmasq", "busybox", "nsenter")


class SettledPlane(OvsDataPlane):
    """Returns when the datapath does what the flows say."""

    ovs: server.Server

    async def _settle(self) -> None:
        await super()._settle()
        await self.ovs.settled()

    async def _dropped(self) -> Mapping[str, int]:
        await self.ovs.settled()
        return await super()._dropped()


class SettledFirewall(OvsFirewall):
    """The same of rules."""

    def __init__(self, switch: Switch, ovs: server.Server) -> None:
        super().__init__(switch)
        self._ovs = ovs

    async def load(self, ruleset: Ruleset) -> None:
        await super().load(ruleset)
        await self._ovs.settled()

    async def remove(self) -> None:
        await super().remove()
        await self._ovs.settled()

    async def counters(self) -> Mapping[RuleRef, Count]:
        await self._ovs.settled()
        return await super().counters()


class OvsLab(Lab):
    """``firewalled``: as in a daemon, nothing passes without rules."""

    firewalled = False
    ovs: server.Server
    plane: OvsDataPlane

    async def prepare(self) -> None:
        self.folder.chmod(0o755)
        self.host, self.outside = await self.namespace("host"), await self.namespace("out")
        await self.host.ip(f"link add up0 type veth peer name out0 netns {self.outside.name}")
        await self.outside.ip("link set out0 up")
        # A path that is short enough for a socket.
        sockets = Path(tempfile.mkdtemp(prefix="cmv-"))
        self._stack.callback(shutil.rmtree, sockets)
        self.ovs = await self._stack.enter_async_context(server.server(sockets, self.host.path))
        self.plane = self.data_plane()

    def data_plane(self) -> OvsDataPlane:
        self.switch = self.ovs.switch()
        plane = SettledPlane(
            SystemRunner(), self.folder / "run", self.folder / "state", self.switch, namespace=self.host.path,
            firewalled=self.firewalled,
        )  # fmt: skip
        plane.ovs = self.ovs
        self._stack.push_async_callback(self._close, plane)
        return plane


@pytest.fixture
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OvsLab]:
    if why := server.missing():
        pytest.skip(why)
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("net")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # dnsmasq gives its privileges up
    async with contextlib.AsyncExitStack() as stack:
        made = OvsLab(folder, stack)
        await made.prepare()
        yield made
        await made.plane.adopt([], [])
