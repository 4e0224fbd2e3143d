"""Ports on Open vSwitch, and an uplink, whose ends are read and written frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from carmel.network.dataplane import NetworkPlan, PortPlan, UplinkPlan
from carmel.network.netns import enter
from carmel.network.ovs.health import read_lookups
from tests.system.network.firewall.wire import _MAGIC, _TAG, marker
from tests.system.network.host.lab import HEADER
from tests.system.network.ovs.conftest import OvsLab, SettledFirewall

UPLINK = "uplink"
_NETWORK = NetworkPlan("wire", uplink=UplinkPlan(("up0",)))
_SECONDS = 20


class Wire:
    """``ports`` by any names; ``interface`` says what they are called on the switch."""

    def __init__(self, lab: OvsLab) -> None:
        self.lab = lab
        self._plans: dict[str, PortPlan] = {}
        self._ends: dict[str, int] = {}
        self._marks = itertools.count()
        self.firewall = SettledFirewall(lab.switch, lab.ovs)

    async def open(self, ports: Sequence[str], stack: contextlib.AsyncExitStack) -> None:
        await self.lab.plane.ensure_network(_NETWORK)
        raw = await asyncio.to_thread(_raw_socket, self.lab.outside.path)
        stack.callback(raw.close)
        self._ends[UPLINK] = raw.fileno()
        for number, name in enumerate(ports):
            plan = PortPlan(name, "eth0", "wire", f"52:54:00:00:01:{number:02x}", source_guard=False)
            tap = await self.lab.plug(plan)
            self._plans[name], self._ends[name] = plan, tap.fd

    def interface(self, name: str) -> str:
        return self._plans[name].interface

    async def forget(self) -> None:
        """All connections: a frame that goes the other way is not to be an answer."""
        await self.lab.ovs.run("ovs-appctl", "dpctl/flush-conntrack")

    def send(self, name: str, frame: bytes) -> None:
        os.write(self._ends[name], frame if name == UPLINK else bytes(HEADER) + frame)

    async def send_and_wait(self, name: str, frame: bytes) -> None:
        """Until Open vSwitch has decided about it."""
        before = await self._decided()
        self.send(name, frame)
        async with asyncio.timeout(_SECONDS):
            while await self._decided() == before:  # noqa: ASYNC110 - it waits for another process
                await asyncio.sleep(0.02)

    async def _decided(self) -> int:
        lookups = read_lookups(await self.lab.ovs.run("ovs-appctl", "dpctl/show"))
        assert lookups is not None
        return lookups.hit + lookups.missed

    def arrived(self, source: str, *targets: str) -> list[set[int]]:
        """The tags of what ``source`` sent that came to each of ``targets``.

        Frames that were read at once are sorted by their flows, so that the last may overtake the first. But none
        overtakes one that had not been read when it arrived: so there are two marks, one after the other.
        """
        found: list[set[int]] = [set() for _ in targets]
        for _ in range(2):
            self.send(source, mark := marker(next(self._marks)))
            for tags, target in zip(found, targets, strict=True):
                tags.update(self._until(target, mark))
        return found

    def _until(self, name: str, mark: bytes) -> set[int]:
        tags = set()
        while (frame := self._next(name)) != mark:
            at = frame.find(_MAGIC)
            if at >= 0:
                tags.add(_TAG.unpack_from(frame, at)[1])
        return tags

    def _next(self, name: str) -> bytes:
        ready, _, _ = select.select([self._ends[name]], [], [], _SECONDS)
        if not ready:
            raise TimeoutError(f"nothing comes to {name}")
        data = os.read(self._ends[name], 70_000)
        return data if name == UPLINK else data[HEADER:]


def _raw_socket(namespace: Path) -> socket.socket:
    """In another thread, which is moved to the namespace and ends."""
    made: list[socket.socket] = []

    def make() -> None:
        enter(namespace)
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        one.bind(("out0", 0))
        made.append(one)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


@contextlib.asynccontextmanager
async def wire(folder: Path, ports: Sequence[str]) -> AsyncIterator[Wire]:
    async with contextlib.AsyncExitStack() as stack:
        lab = OvsLab(folder, stack)
        lab.firewalled = True
        await lab.prepare()
        # No addresses of the kernel's own outside, and so no frames of its own either.
        await lab.outside.run("busybox", "sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1", check=False)
        made = Wire(lab)
        await made.open(ports, stack)
        yield made
        await made.firewall.remove()
        await lab.plane.adopt([], [])
