"""``DataPlane`` by Open vSwitch. Taps, addresses of gateways, DHCP and masquerading are as on a Linux bridge; who is
plugged in where is in OVSDB, and what is done with a frame in flows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from carmel.errors import Refused
from carmel.network.dataplane import NetworkPlan
from carmel.network.host.dnsmasq import Dnsmasq
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.network.host.kernel import KernelState
from carmel.network.host.netlink import Netlink
from carmel.network.host.watched import WatchedNft
from carmel.network.ovs.layout import as_bridged
from carmel.network.ovs.settling import OvsSettling
from carmel.network.ovs.switch import Switch
from carmel.network.ovs.tables import Table
from carmel.run import Runner


class OvsDataPlane(HostDataPlane):
    """``firewalled``: nothing passes until a firewall was loaded into ``switch``."""

    backend = "openvswitch"

    def __init__(
        self,
        runner: Runner,
        runtime: Path,
        state: Path,
        switch: Switch,
        *,
        firewalled: bool = True,
        namespace: Path | None = None,
    ) -> None:
        def settling(netlink: Netlink, nft: WatchedNft, dnsmasq: Dnsmasq) -> OvsSettling:
            self._flows = OvsSettling(netlink, nft, dnsmasq, switch, firewalled=firewalled)
            return self._flows

        self._switch = switch
        super().__init__(runner, runtime, state, namespace=namespace, settling=settling)

    async def ensure_network(self, network: NetworkPlan) -> None:
        if network.uplink is not None and network.uplink.takeover:
            raise Refused(
                f"Open vSwitch does not take over an uplink's addresses ({', '.join(network.uplink.members)})",
                code="NotSupported",
                hint="use an uplink without addresses, or the Linux bridge",
            )
        await super().ensure_network(network)

    async def restore(self) -> None:
        """Put back what is missing: Open vSwitch was started anew, and has lost all flows."""
        async with self._lock:
            await self._settle()

    async def aclose(self) -> None:
        await super().aclose()
        await self._switch.aclose()

    async def _look(self) -> KernelState:
        return as_bridged(await self._netlink.observe(), await self._flows.seen())

    async def _dropped(self) -> Mapping[str, int]:
        if not self._flows.plugged:
            return {}
        if not await self._switch.network.is_there():
            # It was started anew, and has lost all flows.
            await self._settle()
        dropped = {one.cookie: one.packets for one in await self._switch.openflow.counts(Table.DROPPED)}
        return {name: dropped.get(port.ofport, 0) for name, port in self._flows.plugged.items()}
