"""``DataPlane`` by this machine's kernel: keeps what is wanted, and brings the kernel there by plans.

Every call changes what is wanted and settles: looks at the kernel, plans, applies. So a call that was cut short is made
good by the next one, and settling what is settled does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from carmel.errors import CarmelError, NotFound, Refused
from carmel.network.dataplane import Address, NetworkPlan, PortCount, PortHandles, PortPlan, Takeover
from carmel.network.firewall.nft_watch import NftWatch
from carmel.network.host import guard, learning
from carmel.network.host.check import check_network, check_port
from carmel.network.host.dnsmasq import Dnsmasq
from carmel.network.host.kernel import KernelState
from carmel.network.host.lending import check_representor
from carmel.network.host.memory import Memory, Realised
from carmel.network.host.netlink import Netlink
from carmel.network.host.nft import Nft
from carmel.network.host.plan import bridge_of
from carmel.network.host.settling import Settling
from carmel.network.host.takeover import Takeovers
from carmel.network.host.watched import WatchedNft
from carmel.run import Runner

_log = logging.getLogger(__name__)

_MOST_QUEUES = 16


MakeSettling = Callable[[Netlink, WatchedNft, Dnsmasq], Settling]


class HostDataPlane:
    """``runtime`` and ``state`` are directories of its own; ``namespace`` is the network namespace that it works in,
    this process' own if it is absent. ``watch``: that namespace's, where others of this process have one."""

    backend = "linux-bridge"

    def __init__(
        self,
        runner: Runner,
        runtime: Path,
        state: Path,
        *,
        namespace: Path | None = None,
        watch: NftWatch | None = None,
        settling: MakeSettling = Settling,
    ) -> None:
        self._netlink = Netlink(namespace)
        self._watch = watch if watch is not None else NftWatch(namespace)
        self._has_watch_of_its_own = watch is None
        self._nft = WatchedNft(Nft(runner, namespace), self._watch, self._touched)
        self._mending: asyncio.Task[None] | None = None
        self._told: list[Callable[[str], None]] = []
        self._dnsmasq = Dnsmasq(runner, runtime, namespace)
        self._settling = settling(self._netlink, self._nft, self._dnsmasq)
        self._takeovers = Takeovers(self._netlink, runner, state, namespace)
        self._memory = Memory(runtime / "realised.json")
        self._networks: dict[str, NetworkPlan] = {}
        self._ports: dict[str, PortPlan] = {}
        self._lock = asyncio.Lock()

    async def adopt(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        async with self._lock:
            await self._takeovers.recover()
            links = (await self._look()).links
            kept = _kept(await asyncio.to_thread(self._memory.read), networks, ports)
            self._networks = {network.name: network for network in kept.networks}
            self._ports = {
                port.interface: port
                for port in kept.ports
                if port.interface in links and port.network in self._networks
            }
            await self._dnsmasq.stop_all_but({bridge_of(one) for one in kept.networks if one.nat is not None})
            await self._settle()
            await self._takeovers.keep_only({bridge_of(one) for one in (*networks, *kept.networks)})

    async def ensure_network(self, network: NetworkPlan) -> None:
        async with self._lock:
            state = await self._look()
            check_network(network, list(self._networks.values()), state)
            before = self._networks.get(network.name)
            if before is not None and bridge_of(before) != bridge_of(network):
                self._require_unused(network.name)
                await self._takeovers.forget(before)
            if network.uplink is not None and network.uplink.takeover:
                await self._takeovers.begin(network, state)
            async with self._or_as_before():
                self._networks[network.name] = network
                await self._settle()

    async def remove_network(self, name: str) -> None:
        async with self._lock:
            self._require_unused(name)
            gone = self._networks.pop(name, None)
            if gone is not None:
                if gone.nat is not None:
                    await self._dnsmasq.stop(bridge_of(gone))
                await self._takeovers.forget(gone)
                await self._settle()

    async def attach(self, port: PortPlan, queues: int = 1) -> PortHandles:
        async with self._lock:
            self._check(port)
            if not 1 <= queues <= _MOST_QUEUES:
                raise Refused(f"{queues} queues are not offered", hint=f"choose 1 to {_MOST_QUEUES}")
            if port.representor is not None:
                check_representor(port, await self._netlink.observe())
                handles = PortHandles(())
            else:
                handles = await self._netlink.open_tap(port.interface, queues)
            try:
                async with self._or_as_before():
                    self._ports[port.interface] = port
                    await self._settle()
            except BaseException:
                for fd in (*handles.taps, *handles.vhost):
                    os.close(fd)
                raise
            return handles

    async def update(self, port: PortPlan) -> None:
        async with self._lock:
            if port.interface not in self._ports:
                raise NotFound(f"there is no port {port.interface}")
            self._check(port)
            async with self._or_as_before():
                self._ports[port.interface] = port
                await self._settle()

    async def detach(self, interface: str) -> None:
        async with self._lock:
            if self._ports.pop(interface, None) is not None:
                await self._settle()

    async def attached(self) -> Collection[str]:
        async with self._lock:
            return frozenset(self._ports)

    async def counters(self) -> Mapping[str, PortCount]:
        async with self._lock:
            links = (await self._look()).links
            dropped = await self._dropped()
            return {
                # What a tap receives is what its VM sent.
                name: PortCount(*links[name].sent, *links[name].received, dropped.get(name, 0))
                for name in self._ports
                if name in links
            }

    async def addresses(self) -> Mapping[str, Collection[Address]]:
        async with self._lock:
            found: dict[str, Collection[Address]] = {}
            learners = [port for port in self._ports.values() if learning.learns(port)]
            learned = learning.learned(await self._nft.items(learning.LEARNED)) if learners else {}
            for network in self._networks.values():
                leases = await self._dnsmasq.leases(bridge_of(network)) if network.nat is not None else {}
                for port in self._ports.values():
                    if port.network == network.name:
                        given = {leases[port.mac]} if port.mac in leases else set(port.addresses)
                        found[port.interface] = given or learned.get(port.interface, set())
            return found

    async def confirm(self, network: str) -> None:
        async with self._lock:
            known = self._networks.get(network)
            if known is None:
                raise NotFound(f"there is no network {network}")
            await self._takeovers.confirm(known)

    async def takeover(self, network: NetworkPlan) -> Takeover | None:
        return await self._takeovers.state(network)

    def watch(self, told: Callable[[str], None]) -> None:
        self._told.append(told)

    async def aclose(self) -> None:
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        self._nft.close()
        if self._has_watch_of_its_own:
            self._watch.close()
        await self._netlink.aclose()

    # -- what others do -------------------------------------------------------------------------------------------
    def _touched(self, table: str, who: str | None) -> None:
        """Put back at once: whoever flushes the rules lets VMs send as somebody else, and cuts those behind nat off."""
        if who is not None:
            self._settling.not_ours.add(table)
        # Else a look will do: to make all anew forgets what was learned.
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._mend(who), name="rules are put back")

    async def _mend(self, who: str | None) -> None:
        if who is not None:
            _log.warning("rules of ports or networks in the kernel were changed by %s: they are put back", who)
        settled = False
        while not settled or self._settling.not_ours:
            try:
                async with self._lock:
                    await self._settle()
            except CarmelError as error:
                # The next change of anything tries again.
                _log.warning("they could not be put back: %s", error)
                return
            settled = True
        for told in self._told if who is not None else ():
            told(who or "")

    # -- settling -------------------------------------------------------------------------------------------------
    def _require_unused(self, name: str) -> None:
        used = [port for port in self._ports.values() if port.network == name]
        if used:
            raise Refused(
                f"the network {name} has {len(used)} port{'s'[: len(used) != 1]}",
                code="NetworkInUse",
                hint="stop the VMs on it first",
            )

    def _check(self, port: PortPlan) -> None:
        network = self._networks.get(port.network)
        if network is None:
            raise NotFound(f"there is no network {port.network}")
        check_port(port, network, list(self._ports.values()))

    @contextlib.asynccontextmanager
    async def _or_as_before(self) -> AsyncIterator[None]:
        """If it fails, what was wanted before is wanted again, and what was half made for it is removed."""
        networks, ports = dict(self._networks), dict(self._ports)
        try:
            yield
        except BaseException:
            self._networks, self._ports = networks, ports
            with contextlib.suppress(CarmelError):
                await asyncio.shield(self._settle())
            raise

    async def _settle(self) -> None:
        async with self._takeovers.held() as rolled_back:
            networks = [network for network in self._networks.values() if bridge_of(network) not in rolled_back]
            await self._settling.settle(networks, list(self._ports.values()))
        await asyncio.to_thread(self._memory.write, self._networks.values(), self._ports.values())

    async def _look(self) -> KernelState:
        return await self._netlink.observe()

    async def _dropped(self) -> Mapping[str, int]:
        """What the source guard dropped, in frames, by interface."""
        return guard.dropped_packets(await self._nft.items(guard.COUNTERS))


def _kept(realised: Realised | None, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> Realised:
    """Of what was realised, what is still among these; if that is not known, these."""
    if realised is None:
        return Realised("", tuple(networks), tuple(ports))
    names = {network.name for network in networks}
    interfaces = {port.interface for port in ports}
    return replace(
        realised,
        networks=tuple(network for network in realised.networks if network.name in names),
        ports=tuple(port for port in realised.ports if port.interface in interfaces),
    )
