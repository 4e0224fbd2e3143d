"""A firewall that keeps what it is given, and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from carmel.errors import CarmelError
from carmel.network.firewall import (
    Connection,
    Count,
    Decision,
    LabelledVm,
    PortBinding,
    PortKey,
    RuleRef,
    Ruleset,
    decide,
)
from carmel.resources.firewallpolicy import Direction


class FakeFirewall:
    """``FirewallDataPlane`` without a kernel. ``broken`` is what each load fails with."""

    def __init__(self) -> None:
        self.loaded: Ruleset | None = None
        self.loads = 0
        self.broken: CarmelError | None = None
        self._counts: dict[RuleRef, Count] = {}
        self._changed = asyncio.Condition()
        self._told: list[Callable[[str | None], None]] = []

    async def load(self, ruleset: Ruleset) -> None:
        if self.broken is not None:
            raise self.broken
        if ruleset != self.loaded:
            self.loads += 1
        self.loaded = ruleset
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool], seconds: float = 20) -> None:
        """Wait for a load after which ``holds``."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    async def close_unknown(self) -> None:
        if self.loaded is None:
            await self.load(Ruleset({}, {}, {}))

    def watch(self, told: Callable[[str | None], None]) -> None:
        self._told.append(told)

    def lose(self, who: str | None) -> None:
        """As if somebody had flushed the rules."""
        self.loaded = None
        for told in self._told:
            told(who)

    async def counters(self) -> Mapping[RuleRef, Count]:
        return dict(self._counts)

    async def remove(self) -> None:
        self.loaded = None
        self._counts.clear()

    def connect(self, port: PortKey, direction: Direction, connection: Connection, size: int = 60) -> Decision:
        """One packet that begins a connection."""
        assert self.loaded is not None
        decision = decide(self.loaded, port, direction, connection)
        if decision.rule is not None:
            before = self._counts.get(decision.rule, Count(0, 0))
            self._counts[decision.rule] = Count(before.packets + 1, before.bytes + size)
        return decision


class FakePorts:
    """A ``PortSource`` that is told what there is."""

    def __init__(self, *ports: PortBinding, vms: Iterable[LabelledVm] = ()) -> None:
        self.ports = list(ports)
        self.there = list(vms)
        self._told: list[Callable[[], None]] = []

    def vms(self) -> list[LabelledVm]:
        return list(self.there)

    def on_change(self, told: Callable[[], None]) -> None:
        self._told.append(told)

    def changed(self) -> None:
        for told in self._told:
            told()

    def bindings(self) -> list[PortBinding]:
        return list(self.ports)
