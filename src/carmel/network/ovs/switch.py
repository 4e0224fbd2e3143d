"""The one bridge that all ports are on, as data plane and firewall share it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from carmel.network.ovs.openflow import LoadedFlows, OpenFlow
from carmel.network.ovs.ovsdb import Ovsdb
from carmel.network.ovs.rows import SWITCH, Bridge, missing
from carmel.network.ovs.tables import FIREWALL_TABLES, NETWORK_TABLES, Table
from carmel.run import Runner

RUN_FOLDER = Path("/run/openvswitch")


class Switch:
    """``folder`` has Open vSwitch's sockets. ``datapath``: ``system`` (the kernel's) or ``netdev`` (its own)."""

    def __init__(self, runner: Runner, *, folder: Path = RUN_FOLDER, datapath: str = "system") -> None:
        self.datapath = datapath
        self.folder = folder
        self.database = Ovsdb(folder / "db.sock")
        self.openflow = OpenFlow(runner, folder, SWITCH)
        self.network = LoadedFlows(self.openflow, NETWORK_TABLES, Table.NETWORK_STAMP)
        self.firewall = LoadedFlows(self.openflow, FIREWALL_TABLES, Table.FIREWALL_STAMP)
        self.lock = asyncio.Lock()
        """Of the bridge's rows."""
        self.wanted_without_networks = False
        """While rules are loaded, so that they are there before the first port."""

    async def ensure(self) -> None:
        """Make the bridge, closed as it is without flows, if it is not there."""
        async with self.lock:
            bridge = Bridge(SWITCH, self.datapath, secure=True)
            await self.database.apply(missing([bridge], await self.database.observe()))

    async def is_there(self) -> bool:
        return SWITCH in (await self.database.observe()).bridges

    async def aclose(self) -> None:
        await self.database.aclose()
