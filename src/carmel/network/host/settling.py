"""Brings the kernel to networks and ports: links, filters, translation, services, in the order that leaves no gap."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from carmel.errors import Refused
from carmel.network.dataplane import NetworkPlan, PortPlan
from carmel.network.host import guard
from carmel.network.host.dnsmasq import Dnsmasq, dhcp_plan
from carmel.network.host.lending import to_take
from carmel.network.host.nat import LOADED, nat_script
from carmel.network.host.netlink import Netlink
from carmel.network.host.plan import bridge_of, plan, removals
from carmel.network.host.steps import MakeBridge, Remove
from carmel.network.host.watched import WatchedNft
from carmel.network.names import GUARD_TABLE, NAT_TABLE

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Settling:
    """One pass at a time. What is settled already takes a look and nothing else."""

    def __init__(self, netlink: Netlink, nft: WatchedNft, dnsmasq: Dnsmasq) -> None:
        self.netlink = netlink
        self._nft = nft
        self.dnsmasq = dnsmasq
        self.not_ours = set[str]()
        """Tables of which it is not known what others have made of them: they are loaded anew."""

    async def settle(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        """Raises ``CarmelError``; the next pass goes on from wherever this one ended."""
        state = await self.netlink.observe()
        gone = removals(networks, ports, state)
        if gone:
            await self.netlink.apply(gone)
            state = await self.netlink.observe()
        # Filters are there before what they are for.
        await self._filters(ports)
        await self.translate(networks)
        if taken := to_take(ports, state):
            await self.netlink.apply(taken)
            state = await self.netlink.observe()
        steps = plan(networks, ports, state)
        for step in (*gone, *steps):
            if isinstance(step, MakeBridge | Remove):
                # It is bound to the bridge that was there, not to its name.
                await self.dnsmasq.end(step.name)
        await self.netlink.apply(steps)
        await self.serve(networks, ports)

    async def _filters(self, ports: Sequence[PortPlan]) -> None:
        if ports:
            # Before the look: what is changed after it is told.
            await self._nft.watch()
        with self._anew(GUARD_TABLE) as anew:
            loaded = None if anew else guard.loaded_chains(await self._nft.items(guard.LOADED))
            if ports:
                script = guard.guard_script(ports, loaded)
                if script:
                    await self._nft.load(GUARD_TABLE, guard.afresh(script) if loaded is None else script)
            elif await self._nft.items(guard.TABLE) is not None:
                await self._nft.load(GUARD_TABLE, guard.afresh(""))

    async def translate(self, networks: Sequence[NetworkPlan]) -> None:
        """Masquerading of nat networks."""
        natted = any(network.nat is not None for network in networks)
        if natted:
            await self._nft.watch()
        with self._anew(NAT_TABLE) as anew:
            loaded = None if anew and natted else await self._nft.items(LOADED)
            if script := nat_script(networks, loaded):
                await self._nft.load(NAT_TABLE, script)

    async def serve(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        """Routing, DHCP and DNS of nat networks."""
        natted = [network for network in networks if network.nat is not None]
        if natted:
            await self.netlink.call(lambda _route: _forward())
        for network in natted:
            assert network.nat is not None
            theirs = [port for port in ports if port.network == network.name]
            await self.dnsmasq.ensure(dhcp_plan(bridge_of(network), network.nat, network.mtu, theirs))

    @contextlib.contextmanager
    def _anew(self, table: str) -> Iterator[bool]:
        """Whether all of the table is to be loaded, whatever it looks like."""
        touched = table in self.not_ours
        self.not_ours.discard(table)
        try:
            yield touched
        except BaseException:
            if touched:
                self.not_ours.add(table)
            raise


def _forward() -> None:
    """For the whole host, as routing between interfaces is: the kernel has no narrower switch that NAT could use."""
    if _FORWARDING.read_text().strip() == "0":
        try:
            _FORWARDING.write_text("1")
        except OSError as exc:
            raise Refused(
                f"this host does not forward packets, and Carmel may not change that: {exc.strerror}",
                code="NoForwarding",
                hint="set net.ipv4.ip_forward=1",
            ) from exc
