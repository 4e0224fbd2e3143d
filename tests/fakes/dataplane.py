"""A data plane without a kernel: keeps what it is told, and refuses what the real one refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from carmel.errors import NotFound, Refused
from carmel.network.dataplane import (
    Address,
    NetworkPlan,
    PortCount,
    PortHandles,
    PortPlan,
    Takeover,
    TakeoverStage,
    UplinkPlan,
)
from carmel.network.host.check import check_network, check_port
from carmel.network.host.kernel import KernelState, Lent, Link
from carmel.network.host.lending import check_representor
from carmel.network.names import LINK_GROUP


class FakeDataPlane:
    """``links`` are those of the machine that it plays. A port lives while a descriptor of it is open, or its
    representor is there. The test plays the process that puts an uplink back: ``roll_back``."""

    backend = "linux-bridge"

    def __init__(self, *interfaces: Link, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self.links = {link.name: link for link in interfaces}
        self.networks: dict[str, NetworkPlan] = {}
        self.ports: dict[str, PortPlan] = {}
        self._ends: dict[str, int] = {}
        self.counts: dict[str, PortCount] = {}
        self.takeovers: dict[str, Takeover] = {}
        self._told: list[Callable[[str], None]] = []

    def watch(self, told: Callable[[str], None]) -> None:
        self._told.append(told)

    def put_back(self, who: str) -> None:
        """As if that one had flushed the kernel's rules."""
        for told in self._told:
            told(who)

    async def adopt(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        names, interfaces = {network.name for network in networks}, {port.interface for port in ports}
        self.networks = {name: network for name, network in self.networks.items() if name in names}
        self.ports = {
            name: port
            for name, port in self.ports.items()
            if name in interfaces and port.network in self.networks and self._is_there(name)
        }
        self._lend_and_take_back()

    async def ensure_network(self, network: NetworkPlan) -> None:
        check_network(network, list(self.networks.values()), KernelState(self.links))
        if network.uplink is not None and network.uplink.takeover:
            self._take_over(network.name, network.uplink)
        self.networks[network.name] = network

    async def remove_network(self, name: str) -> None:
        if any(port.network == name for port in self.ports.values()):
            raise Refused(f"the network {name} has ports", code="NetworkInUse")
        self.networks.pop(name, None)
        self.takeovers.pop(name, None)

    async def attach(self, port: PortPlan, queues: int = 1) -> PortHandles:
        self._check(port)
        if port.representor is not None:
            check_representor(port, KernelState(self.links))
            self.ports[port.interface] = port
            self._lend_and_take_back()
            return PortHandles(())
        if self._is_open(port.interface):
            raise Refused(f"the port {port.interface} is in use already", code="PortInUse")
        end, tap = os.pipe()
        self._forget(port.interface)
        self._ends[port.interface] = end
        self.ports[port.interface] = port
        return PortHandles((tap, *(os.dup(tap) for _ in range(queues - 1))))

    async def update(self, port: PortPlan) -> None:
        if port.interface not in self.ports:
            raise NotFound(f"there is no port {port.interface}")
        self._check(port)
        self.ports[port.interface] = port
        self._lend_and_take_back()

    async def detach(self, interface: str) -> None:
        self.ports.pop(interface, None)
        self._forget(interface)
        self._lend_and_take_back()

    async def attached(self) -> Collection[str]:
        return frozenset(self.ports)

    async def counters(self) -> Mapping[str, PortCount]:
        nothing = PortCount(0, 0, 0, 0, 0)
        return {name: self.counts.get(name, nothing) for name in self.ports if self._is_there(name)}

    async def addresses(self) -> Mapping[str, Collection[Address]]:
        return {name: set(port.addresses) for name, port in self.ports.items()}

    async def confirm(self, network: str) -> None:
        if network not in self.networks:
            raise NotFound(f"there is no network {network}")
        if network not in self.takeovers or self.takeovers[network].stage is not TakeoverStage.WAITING:
            raise Refused(f"nothing of the network {network} waits to be confirmed", code="NothingToConfirm")
        self.takeovers[network] = replace(self.takeovers[network], stage=TakeoverStage.CONFIRMED)

    async def takeover(self, network: NetworkPlan) -> Takeover | None:
        return self.takeovers.get(network.name)

    async def aclose(self) -> None:
        for name in list(self._ends):
            self._forget(name)

    def roll_back(self, network: str) -> None:
        self.takeovers[network] = replace(self.takeovers[network], stage=TakeoverStage.ROLLED_BACK)

    def _take_over(self, network: str, uplink: UplinkPlan) -> None:
        before = self.takeovers.get(network)
        seconds = timedelta(seconds=uplink.confirm_seconds)
        if before is not None and before.stage is TakeoverStage.ROLLED_BACK:
            if before.deadline - before.started_at == seconds:
                raise Refused(f"the uplink {uplink.members[0]} was put back", code="RolledBack")
            before = None
        if before is None and self.links[uplink.members[0]].addresses:
            self.takeovers[network] = Takeover(TakeoverStage.WAITING, self._now(), self._now() + seconds)

    def _check(self, port: PortPlan) -> None:
        if port.network not in self.networks:
            raise NotFound(f"there is no network {port.network}")
        check_port(port, self.networks[port.network], list(self.ports.values()))

    def _lend_and_take_back(self) -> None:
        """What the kernel's does with representors, in names alone."""
        for link in list(self.links.values()):
            wanted = self.ports.get(link.name)
            if link.lent is not None and (wanted is None or wanted.representor != link.lent.name):
                del self.links[link.name]
                self.links[link.lent.name] = Link(link.lent.name, link.index, mac=link.mac, mtu=link.lent.mtu)
        for port in self.ports.values():
            free = self.links.get(port.representor or "")
            if free is not None and free.master is None and not free.addresses:
                del self.links[free.name]
                alias = Lent(free.name, free.mtu).alias(port.owner, port.nic)
                taken = replace(free, name=port.interface, group=LINK_GROUP, alias=alias, up=True)
                self.links[port.interface] = taken

    def _is_there(self, interface: str) -> bool:
        return interface in self.links or self._is_open(interface)

    def _is_open(self, interface: str) -> bool:
        """Whether somebody holds the other end: a pipe without writers is at its end."""
        end = self._ends.get(interface)
        if end is None:
            return False
        os.set_blocking(end, False)
        try:
            return os.read(end, 1) != b""
        except BlockingIOError:
            return True

    def _forget(self, interface: str) -> None:
        end = self._ends.pop(interface, None)
        if end is not None:
            os.close(end)
