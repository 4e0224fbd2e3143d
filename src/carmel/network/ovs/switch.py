"""The one bridge that all ports are on, as data plane and firewall share it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from carmel.network.ovs.openflow import LoadedFlows, OpenFlow
from carmel.network.ovs.ovsdb import Ovsdb
from carmel.network.ovs.packetlog import PacketLog
from carmel.network.ovs.rows import SWITCH, Bridge, missing
from carmel.network.ovs.tables import FIREWALL_TABLES, NETWORK_TABLES, Table
from carmel.run import Runner

_RUN_FOLDER = Path("/run/openvswitch")
_MODULE = Path("/sys/module/openvswitch")


def run_folder(environ: Mapping[str, str]) -> Path:
    """Where Open vSwitch has its sockets: by the variable that its own programs know (ovs-appctl(8))."""
    return Path(environ.get("OVS_RUNDIR") or _RUN_FOLDER)


class Switch:
    """``folder`` has Open vSwitch's sockets. ``datapath``: ``system`` (the kernel's) or ``netdev`` (its own, in user
    space); when absent the kernel's where it has one, which whoever starts Open vSwitch loads."""

    def __init__(self, runner: Runner, folder: Path, datapath: str | None = None) -> None:
        self._datapath = datapath
        self.folder = folder
        self.database = Ovsdb(folder / "db.sock")
        self.openflow = OpenFlow(runner, folder, SWITCH)
        self.network = LoadedFlows(self.openflow, NETWORK_TABLES, Table.NETWORK_STAMP)
        self.firewall = LoadedFlows(self.openflow, FIREWALL_TABLES, Table.FIREWALL_STAMP)
        self.packet_log = PacketLog(self.openflow)
        self.lock = asyncio.Lock()
        """Of the bridge's rows."""
        self.wanted_without_networks = False
        """While rules are loaded, so that they are there before the first port."""

    @property
    def datapath(self) -> str:
        return self._datapath or ("system" if _MODULE.exists() else "netdev")

    async def ensure(self) -> None:
        """Make the bridge, closed as it is without flows, if it is not there."""
        async with self.lock:
            bridge = Bridge(SWITCH, self.datapath, secure=True)
            await self.database.apply(missing([bridge], await self.database.observe()))

    async def is_there(self) -> bool:
        return SWITCH in (await self.database.observe()).bridges

    async def aclose(self) -> None:
        await self.packet_log.aclose()
        await self.database.aclose()
