"""``FirewallDataPlane`` by Open vSwitch: the same ruleset as nftables has, as flows with connection tracking."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

from carmel.errors import Unavailable
from carmel.network.firewall.compile import Ruleset
from carmel.network.firewall.model import Count, RuleRef
from carmel.network.ovs.packetlog import MOST_A_SECOND
from carmel.network.ovs.rulebook import GENERATIONS, OPEN, Rulebook, everything_passes, gates, interfaces, rulebook
from carmel.network.ovs.rules import LOG_METER
from carmel.network.ovs.switch import Switch
from carmel.network.ovs.tables import Table


class OvsFirewall:
    """Ports are known by their interfaces' names. One that no ruleset names gets nothing through, nor does any before
    the first ruleset is loaded."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._lock = asyncio.Lock()
        # Begins anywhere: what an earlier daemon's connections are marked with must not pass for judged.
        self._generation = secrets.randbelow(GENERATIONS)
        self._book: Rulebook | None = None

    async def close_unknown(self) -> None:
        self._switch.wanted_without_networks = True
        await self._switch.ensure()
        # It is closed without flows, and what an earlier daemon loaded is closed for ports that it does not know.
        if any(one.cookie == OPEN for one in await self._switch.openflow.counts(Table.FROM)):
            await self.load(Ruleset({}, {}, {}))

    def watch(self, told: Callable[[str | None], None]) -> None:
        """Open vSwitch tells nobody: what others change is found out when counters are read."""

    async def load(self, ruleset: Ruleset) -> None:
        async with self._lock:
            self._switch.wanted_without_networks = True
            book = await asyncio.to_thread(rulebook, ruleset, self._book or Rulebook())
            if self._book is not None and book.flows == self._book.flows and await self._switch.firewall.is_there():
                self._book = book
                return
            await self._switch.ensure()
            if book.logged:
                await self._switch.openflow.limit_packets(LOG_METER, MOST_A_SECOND)
            await self._switch.packet_log.know(book.logged, interfaces(ruleset))
            generation = (self._generation + 1) % GENERATIONS
            await self._switch.firewall.put({**book.flows, **gates(generation)})
            self._book, self._generation = book, generation

    async def counters(self) -> Mapping[RuleRef, Count]:
        async with self._lock:
            if self._book is None:
                return {}
            if not await self._switch.firewall.is_there():
                # Open vSwitch was started anew, which is closed without flows: the next load puts them back.
                self._switch.firewall.forget()
                raise Unavailable("Open vSwitch has lost the firewall's flows", code="FirewallGone")
            listed = await self._switch.openflow.counts(Table.RULES)
            found: dict[RuleRef, Count] = {}
            rules = self._book.rules
            for one in listed:
                if one.packets and (rule := rules.get(one.cookie)) is not None:
                    before = found.get(rule, Count(0, 0))
                    found[rule] = Count(before.packets + one.packets, before.bytes + one.bytes)
            return found

    async def remove(self) -> None:
        async with self._lock:
            self._book = None
            await self._switch.packet_log.know({}, {})
            self._switch.wanted_without_networks = False
            if await self._switch.is_there():
                await self._switch.firewall.put(everything_passes())
