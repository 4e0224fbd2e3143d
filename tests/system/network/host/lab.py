"""Network namespaces that stand for a host, for what is outside of it, and for VMs. Nothing of this machine's own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from carmel.network.dataplane import NatPlan, NetworkPlan, PortHandles, PortPlan, UplinkPlan
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.network.host.netlink import Netlink
from carmel.network.host.pool import choose_address
from carmel.network.user import mac_address
from carmel.run import Command, Limits, Result, SystemRunner

HEADER = 12
"""Of virtio-net, before each frame of a tap."""
BROADCAST = "ff:ff:ff:ff:ff:ff"
LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
ip link set "$interface" mtu "${mtu:-1500}"
echo "$dns" > "$0.dns"
"""


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    async def run(self, *argv: str | Path, check: bool = True, seconds: float = 30) -> Result:
        words: list[str | Path] = ["nsenter", f"--net={self.path}", "--", *argv]
        return await SystemRunner().run(Command(words, limits=Limits(seconds=seconds)), check=check)

    async def ip(self, line: str) -> None:
        await self.run("ip", *line.split())


class Lab:
    """``host`` has a data plane and, by ``up0``, a cable to ``out0`` in ``outside``."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._tag = f"cml{secrets.token_hex(3)}"
        self._numbers = itertools.count(1)
        self._closed: list[HostDataPlane] = []

    async def prepare(self) -> None:
        self.folder.chmod(0o755)
        self.host, self.outside = await self.namespace("host"), await self.namespace("out")
        await self.host.ip(f"link add up0 type veth peer name out0 netns {self.outside.name}")
        await self.outside.ip("link set out0 up")
        self.plane = self.data_plane()

    def data_plane(self) -> HostDataPlane:
        plane = HostDataPlane(SystemRunner(), self.folder / "run", self.folder / "state", namespace=self.host.path)
        self._stack.push_async_callback(self._close, plane)
        return plane

    async def restart(self) -> None:
        """The daemon's: another data plane, and the one before puts nothing back any more."""
        await self._close(self.plane)
        self.plane = self.data_plane()

    async def _close(self, plane: HostDataPlane) -> None:
        if plane not in self._closed:
            self._closed.append(plane)
            await plane.aclose()

    async def namespace(self, what: str) -> Namespace:
        space = Namespace(f"{self._tag}{what}")
        await SystemRunner().run(Command(["ip", "netns", "add", space.name]))
        self._stack.push_async_callback(SystemRunner().run, Command(["ip", "netns", "delete", space.name]))
        self._stack.push_async_callback(_end_all, space)
        await space.ip("link set lo up")
        return space

    async def needs(self, feature: str, link: str) -> None:
        """Skip the test if the kernel cannot make such a ``link``."""
        result = await self.host.run("ip", "link", "add", "name", "probe", *link.split(), check=False)
        if result.status != 0:
            pytest.skip(f"this kernel has no {feature}: {result.last_words.splitlines()[0]}")
        await self.host.ip("link delete probe")

    async def interfaces(self) -> set[str]:
        lines = (await self.host.run("ip", "-o", "link")).text.splitlines()
        return {line.split(":")[1].strip().split("@")[0] for line in lines}

    async def plug(self, port: PortPlan, queues: int = 1) -> Tap:
        handles = await self.plane.attach(port, queues)
        self._stack.callback(_close, handles)
        return Tap(port, handles)

    async def boot(self, port: PortPlan) -> Vm:
        """A network stack at the end of a port, as a guest's kernel would be."""
        tap = await self.plug(port)
        space = await self.namespace(f"vm{next(self._numbers)}")
        inside = Netlink(space.path)
        self._stack.push_async_callback(inside.aclose)
        await inside.call(lambda _route: None)
        guest = await inside.open_tap("eth0", 1)
        self._stack.callback(_close, guest)
        await space.ip(f"link set eth0 address {port.mac}")
        relay = Relay(tap.fd, guest.taps[0])
        self._stack.callback(relay.stop)
        await space.ip("link set eth0 up")
        return Vm(port, space, self.folder, relay)


async def _end_all(space: Namespace) -> None:
    """Of a test that failed: whoever lives in a namespace that is ours alone."""
    for pid in (await SystemRunner().run(Command(["ip", "netns", "pids", space.name]))).text.split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _close(handles: PortHandles) -> None:
    for fd in (*handles.taps, *handles.vhost):
        with contextlib.suppress(OSError):
            os.close(fd)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Relay:
    """The cable between a port's tap and the guest's."""

    def __init__(self, one: int, other: int) -> None:
        self._ends = (one, other)
        loop = asyncio.get_running_loop()
        loop.add_reader(one, self._carry, one, other)
        loop.add_reader(other, self._carry, other, one)

    def stop(self) -> None:
        for fd in self._ends:
            asyncio.get_running_loop().remove_reader(fd)

    @staticmethod
    def _carry(source: int, target: int) -> None:
        with contextlib.suppress(OSError):  # full, or down
            os.write(target, os.read(source, 70_000))


@dataclass
class Vm:
    """What a guest can do."""

    port: PortPlan
    space: Namespace
    folder: Path
    relay: Relay

    async def dhcp(self) -> IPv4Address | None:
        """By busybox' client; ``None`` if nobody answers."""
        script = self.folder / "lease.sh"
        script.write_text(LEASE_SCRIPT)
        script.chmod(0o755)
        words: list[str | Path] = [
            "busybox",
            "udhcpc",
            "-f",
            "-n",
            "-q",
            "-t",
            "5",
            "-T",
            "1",
            "-i",
            "eth0",
            "-s",
            script,
        ]
        result = await self.space.run(*words, check=False)
        if result.status != 0:
            return None
        shown = (await self.space.run("ip", "-o", "-4", "addr", "show", "eth0")).text
        return IPv4Address(shown.split("inet ")[1].split("/")[0])

    async def reaches(self, address: object) -> bool:
        words = ["busybox", "ping", "-c", "1", "-W", "1", str(address)]
        # The first may be lost while neighbours are looked up.
        return any([(await self.space.run(*words, check=False)).status == 0 for _ in range(2)])


@dataclass
class Tap:
    """A port whose guest sends and sees raw frames."""

    port: PortPlan
    handles: PortHandles

    @property
    def fd(self) -> int:
        return self.handles.taps[0]

    def send(self, frame: bytes) -> None:
        os.write(self.fd, bytes(HEADER) + frame)

    async def receive(self, wanted: bytes, seconds: float = 3) -> bytes:
        """The next frame with ``wanted`` in it."""
        async with asyncio.timeout(seconds):
            async for frame in self.frames():
                if wanted in frame:
                    return frame
        raise AssertionError

    async def frames(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                yield os.read(self.fd, 70_000)[HEADER:]
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(self.fd, _wake, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(self.fd)

    async def until(self, last: bytes, seconds: float = 5) -> list[bytes]:
        """All frames up to one with ``last`` in it."""
        found = []
        async with asyncio.timeout(seconds):
            async for frame in self.frames():
                found.append(frame)
                if last in frame:
                    return found
        raise AssertionError


async def soon(check: Callable[[], Awaitable[bool]], seconds: float = 20) -> bool:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - it waits for another process, and for the kernel
            await asyncio.sleep(0.1)
    return True


# -- plans --------------------------------------------------------------------------------------------------------
SUBNET = IPv4Network("10.77.0.0/24")


def nat(name: str = "inner", subnet: IPv4Network = SUBNET, mtu: int = 1500) -> NetworkPlan:
    return NetworkPlan(name, NatPlan(subnet), mtu=mtu)


def port(vm: str, network: NetworkPlan, **values: object) -> PortPlan:
    mac = mac_address(vm, "eth0")
    given = {} if network.nat is None else {"addresses": (choose_address(network.nat.subnet, mac, ()),)}
    return PortPlan(vm, "eth0", network.name, mac, **{**given, **values})  # type: ignore[arg-type]


def bridged(name: str, *members: str, vlan: int | None = None, mtu: int = 1500, **values: object) -> NetworkPlan:
    return NetworkPlan(name, uplink=UplinkPlan(members or ("up0",), vlan=vlan, **values), mtu=mtu)  # type: ignore[arg-type]


def nic(vm: str, network: NetworkPlan, address: str, **values: object) -> PortPlan:
    return port(vm, network, addresses=(IPv4Address(address),), **values)


# -- frames -------------------------------------------------------------------------------------------------------
def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(
    source: str, payload: bytes, kind: int = 0x0800, target: str = BROADCAST, vlan: int | None = None
) -> bytes:
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return mac_bytes(target) + mac_bytes(source) + tag + struct.pack("!H", kind) + payload


def udp(source: str, text: bytes, target: str = "255.255.255.255", ports: tuple[int, int] = (4000, 4000)) -> bytes:
    """An IPv4 packet."""
    body = struct.pack("!HHHH", *ports, 8 + len(text), 0) + text
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        1,
        0,
        64,
        17,
        0,
        IPv4Address(source).packed,
        IPv4Address(target).packed,
    )
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + body


def arp(mac: str, address: str, text: bytes = b"") -> bytes:
    """A gratuitous announcement."""
    own = IPv4Address(address).packed
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac_bytes(mac) + own + bytes(6) + own + text
