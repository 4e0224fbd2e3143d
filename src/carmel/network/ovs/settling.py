"""Brings Open vSwitch and the kernel to networks and ports: links, rows, flows, then what the kernel does for nat."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from carmel.errors import Unavailable
from carmel.network.dataplane import NetworkPlan, PortPlan
from carmel.network.host.dnsmasq import Dnsmasq
from carmel.network.host.kernel import KernelState
from carmel.network.host.lending import to_give_back, to_take
from carmel.network.host.netlink import Netlink
from carmel.network.host.plan import bridge_of
from carmel.network.host.settling import Settling
from carmel.network.host.steps import (
    AddAddress,
    DisableIpv6,
    GiveBack,
    MarkPort,
    Remove,
    RemoveAddress,
    SetUp,
    Step,
    Take,
)
from carmel.network.host.watched import WatchedNft
from carmel.network.names import GUARD_TABLE
from carmel.network.ovs import mtus
from carmel.network.ovs.layout import meters, outside, plugged, segments
from carmel.network.ovs.pipeline import Plugged, pipeline, zone_of
from carmel.network.ovs.rows import Bridge, Seen, leaving, missing, too_many, wanted_bridges
from carmel.network.ovs.switch import Switch


class OvsSettling(Settling):
    """``plugged``: ports whose flows are there, by their interfaces. ``firewalled`` as ``OvsDataPlane`` has it."""

    def __init__(
        self, netlink: Netlink, nft: WatchedNft, dnsmasq: Dnsmasq, switch: Switch, *, firewalled: bool
    ) -> None:
        super().__init__(netlink, nft, dnsmasq)
        self._switch = switch
        self._firewalled = firewalled
        self._segments: Mapping[str, int] = {}
        self.plugged: Mapping[str, Plugged] = {}

    async def settle(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        async with self._switch.lock:
            known = {network.name for network in networks}
            ports = [port for port in ports if port.network in known]
            await self._let_go(networks, ports)
            fresh = await self._links(networks, ports)
            kernel = await self.netlink.observe()
            here = [port for port in ports if port.interface in kernel.links]
            await self._switch.database.apply(missing(self._wanted(networks, here), await self.seen()))
            await self._give_mtus(networks)
            await self._gateways(networks)
            await self._flows(networks, here, fresh)
        # What a guard says is in the flows.
        self.not_ours.discard(GUARD_TABLE)
        await self.translate(networks)
        await self.serve(networks, ports)

    def _wanted(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> tuple[Bridge, ...]:
        always = self._switch.wanted_without_networks
        return wanted_bridges(networks, ports, self._switch.datapath, always=always)

    async def seen(self) -> Seen:
        return await self._switch.database.observe()

    async def _let_go(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        """Open vSwitch lets go of links before they are removed, renamed or made anew."""
        kernel = await self.netlink.observe()
        gone = list(_leftovers(ports, kernel))
        names = {step.name for step in gone}
        stay = [one for one in ports if one.interface in kernel.links and one.interface not in names]
        fresh = {one.interface for one in stay if not kernel.links[one.interface].ours}
        seen = await self.seen()
        steps = too_many(self._wanted(networks, stay), seen, fresh)
        await self.netlink.apply(list(mtus.to_give_back(leaving(steps, seen), kernel.links, seen.mtus)))
        await self._switch.database.apply(steps)
        await self.netlink.apply(gone)

    async def _give_mtus(self, networks: Sequence[NetworkPlan]) -> None:
        kernel, seen = await self.netlink.observe(), await self.seen()
        todo = list(mtus.to_give(networks, kernel.links, seen.mtus))
        await self._switch.database.note([note for note, _step in todo])
        await self.netlink.apply([step for _note, step in todo])

    async def _links(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> set[str]:
        """What links need before Open vSwitch opens them. Answers which ports' are new."""
        kernel = await self.netlink.observe()
        taken = to_take(ports, kernel)
        if taken:
            await self.netlink.apply(taken)
            kernel = await self.netlink.observe()
        here = [port for port in ports if port.interface in kernel.links]
        fresh = {port.interface for port in here if not kernel.links[port.interface].ours}
        await self.netlink.apply(list(_before(networks, here, kernel)))
        return fresh | {step.interface for step in taken if isinstance(step, Take)}

    async def _gateways(self, networks: Sequence[NetworkPlan]) -> None:
        steps = list(_gateway_steps(networks, await self.netlink.observe()))
        for step in steps:
            if isinstance(step, AddAddress):
                # A new interface: dnsmasq is bound to the one that was there, not to its name.
                await self.dnsmasq.end(step.name)
        await self.netlink.apply(steps)

    async def _flows(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], fresh: set[str]) -> None:
        seen = await self.seen()
        for port in ports:
            if port.interface not in seen.numbers:
                why = seen.errors.get(port.interface, "it has no number")
                raise Unavailable(f"Open vSwitch does not open {port.interface}: {why}", code="PortNotOpened")
        self._segments = segments(networks, ports, self._segments)
        here = plugged(networks, ports, self._segments, seen)
        openflow = self._switch.openflow
        if networks:
            there, needed = await openflow.meters(), meters(here)
            await openflow.set_meters(needed, there)
            for one in here:
                if one.plan.interface in fresh:
                    # Its number, and so its zone, may have been another's before.
                    await openflow.forget_connections(zone_of(one.ofport))
            flows = pipeline(here, outside(networks, self._segments, seen), firewalled=self._firewalled)
            await self._switch.network.put(flows)
            await openflow.remove_meters([number for number in there if number not in needed])
        else:
            self._switch.network.forget()
        self.plugged = {one.plan.interface: one for one in here}


def _before(networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[Step]:
    """What links need before Open vSwitch opens them."""
    for port in ports:
        link = kernel.links[port.interface]
        if not link.ours:
            yield MarkPort(link.name, f"carmel port {port.owner} {port.nic}")
        if not link.up:
            yield SetUp(link.name)
    for network in networks:
        for name in () if network.uplink is None else network.uplink.members:
            member = kernel.links.get(name)
            if member is not None and not member.up:
                yield SetUp(name)


def _leftovers(ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[GiveBack | Remove]:
    """Representors and taps that nobody wants any more."""
    keep = {port.interface for port in ports}
    yield from to_give_back(ports, kernel)
    for link in kernel.links.values():
        if link.ours and link.lent is None and link.name not in keep:
            yield Remove(link.name)


def _gateway_steps(networks: Sequence[NetworkPlan], kernel: KernelState) -> Iterator[Step]:
    for network in networks:
        link = kernel.links.get(bridge_of(network))
        if network.nat is None or link is None:
            continue
        own = ipaddress.IPv4Interface((network.nat.gateway, network.nat.subnet.prefixlen))
        yield from (RemoveAddress(link.name, old) for old in sorted(link.addresses - {own}, key=str))
        if own not in link.addresses:
            yield AddAddress(link.name, own)
        if not link.up:
            yield DisableIpv6(link.name)
            yield SetUp(link.name)
