"""The data plane of a Linux bridge: nftables' bridge family with connection tracking (Linux 5.3, nf_conntrack_bridge).

One load is one transaction: the kernel takes all of it or nothing, and packets see the rules before it or those after
it. A table is Carmel's by its name; other tables are not touched.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from carmel.errors import Unavailable
from carmel.network.firewall.bursts import burst
from carmel.network.firewall.compile import Chain, Ruleset
from carmel.network.firewall.matches import Network
from carmel.network.firewall.model import Count, RuleRef
from carmel.network.firewall.nft_chains import Fragment, fragment_of, set_name
from carmel.network.firewall.nft_counters import counts
from carmel.network.firewall.nft_rules import Counted
from carmel.network.firewall.nft_state import (
    AddRule,
    AddTable,
    Command,
    DeleteTable,
    FlushChain,
    SetState,
    TableState,
    afresh,
    changes,
)
from carmel.network.firewall.nft_table import GENERATIONS, gates, table_of
from carmel.network.firewall.nft_tables import NftTables, Tables
from carmel.network.names import PORT


@dataclass(frozen=True, slots=True)
class _Loaded:
    """``generation`` is that of the gates in ``state``."""

    ruleset: Ruleset
    state: TableState
    generation: int
    fragments: Mapping[Chain, Fragment]


class NftFirewall:
    """``port_prefix`` is how the names of ports' interfaces begin. An interface with such a name gets nothing through
    until a ruleset knows it.
    """

    def __init__(self, tables: Tables | None = None, *, port_prefix: str = PORT) -> None:
        self._tables = tables if tables is not None else NftTables()
        self._prefix = port_prefix
        self._lock = asyncio.Lock()
        # Begins anywhere: what an earlier daemon's connections are marked with must not pass for judged.
        self._generation = secrets.randbelow(GENERATIONS)
        self._loaded: _Loaded | None = None
        self._fragments: Mapping[Chain, Fragment] = {}
        self._told: Callable[[str | None], None] | None = None
        self._touched = 0

    def watch(self, told: Callable[[str | None], None]) -> None:
        self._told = told

    async def load(self, ruleset: Ruleset) -> None:
        async with self._lock:
            if self._told is not None:
                await self._tables.watch(self._touch)
            counted = await self._tables.counters() if self._loaded is None else None
            wanted, commands = await asyncio.to_thread(self._plan, ruleset, self._loaded, counted or ())
            # Whether it took effect is not known if this is cancelled or fails: the next load begins afresh.
            self._loaded, touched = None, self._touched
            if commands:
                await self._tables.apply(commands)
            self._generation, self._fragments = wanted.generation, wanted.fragments
            # What somebody else did meanwhile may have come before it or after it.
            self._loaded = wanted if self._touched == touched else None

    async def close_unknown(self) -> None:
        async with self._lock:
            closed = self._loaded is not None or await self._tables.counters() is not None
        if not closed:
            await self.load(Ruleset({}, {}, {}))

    @burst()
    def _plan(
        self, ruleset: Ruleset, loaded: _Loaded | None, counted: Sequence[Counted]
    ) -> tuple[_Loaded, list[Command]]:
        known = self._fragments
        fragments = {chain: known.get(chain) or fragment_of(chain) for chain in ruleset.chains.values()}
        state = table_of(ruleset, self._generation, self._prefix, fragments.__getitem__, _sets_of(loaded))
        commands = [] if loaded is None else list(changes(loaded.state, state))
        if loaded is not None and not commands:
            return _Loaded(ruleset, state, self._generation, fragments), commands
        generation = (self._generation + 1) % GENERATIONS
        renewed = gates(generation)
        state = replace(state, chains={**state.chains, **renewed})
        if loaded is None:
            commands = list(afresh(state, counted))
        else:
            for name, chain in renewed.items():
                commands += [FlushChain(name), *(AddRule(name, rule) for rule in chain.rules)]
        return _Loaded(ruleset, state, generation, fragments), commands

    def _touch(self, who: str | None) -> None:
        self._touched += 1
        self._loaded = None
        if self._told is not None:
            self._told(who)

    async def counters(self) -> Mapping[RuleRef, Count]:
        async with self._lock:
            if self._loaded is None:
                return {}
            counted = await self._tables.counters()
            if counted is None:
                # Somebody flushed the rules: the next load puts them back.
                self._loaded = None
                raise Unavailable("the firewall's table is gone", code="FirewallGone")
            lookups = {name: one for part in self._fragments.values() for name, one in part.lookups.items()}
            return await asyncio.to_thread(counts, counted, lookups)

    async def remove(self) -> None:
        async with self._lock:
            self._loaded = None
            await self._tables.apply([AddTable(), DeleteTable()])

    def close(self) -> None:
        """Let go of what was opened; the rules stay in force."""
        self._tables.close()


def _sets_of(loaded: _Loaded | None) -> Callable[[str, frozenset[Network]], SetState | None]:
    """The sets that are loaded, for those whose members are the same object."""
    if loaded is None:
        return lambda _name, _members: None
    same = {set_name(name, version): members for name, members in loaded.ruleset.sets.items() for version in (4, 6)}
    return lambda name, members: loaded.state.sets[name] if same.get(name) is members else None
