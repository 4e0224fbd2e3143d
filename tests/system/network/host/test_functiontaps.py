"""Functions that the host's kernel keeps, joined to descriptors: a veth stands for one, its other end for the NIC."""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import PortHandles
from carmel.network.host import functiontaps
from carmel.network.host.functiontaps import FunctionTaps
from carmel.network.host.taps import close_handles
from tests.system.network.host.lab import BROADCAST, HEADER, Lab

NAME, MAC = "cmf0123456789", "52:54:00:ca:01:00"
FRAME_BYTES, VLAN_7 = 60, b"\x81\x00\x00\x07"


class Function:
    """``vf0`` on the host, ``rep0`` on what stands for the NIC."""

    def __init__(self, lab: Lab, taps: FunctionTaps) -> None:
        self.lab = lab
        self.taps = taps

    async def join(self, name: str = NAME, queues: int = 1, mtu: int = 1500) -> PortHandles:
        index = int((await self.lab.host.run("ip", "-o", "link", "show", "vf0")).text.split(":")[0])
        return await self.taps.join(name, index, "carmel vm eth0", queues, mtu)

    async def flags(self, name: str = "vf0") -> str:
        return (await self.lab.host.run("ip", "-o", "link", "show", name)).text.split("<")[1].split(">")[0]

    async def mtu(self, name: str = "vf0") -> int:
        words = (await self.lab.host.run("ip", "-o", "link", "show", name)).text.split()
        return int(words[words.index("mtu") + 1])

    async def has_ipv6(self, name: str = "vf0") -> bool:
        said = await self.lab.host.run("cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        return said.text.strip() == "0"


@pytest.fixture
async def function(lab: Lab) -> AsyncIterator[Function]:
    await lab.host.ip(f"link add vf0 type veth peer name rep0 netns {lab.outside.name}")
    await lab.host.ip(f"link set vf0 address {MAC}")
    await lab.outside.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/rep0/disable_ipv6")
    await lab.outside.ip("link set rep0 up")
    taps = FunctionTaps(lab.host.path)
    yield Function(lab, taps)
    await taps.aclose()


def frame(source: str, target: str, tag: bytes = b"") -> bytes:
    """Of a protocol for experiments (IEEE 802, 88b5)."""
    ends = bytes.fromhex(f"{target}{source}".replace(":", ""))
    return (ends + tag + b"\x88\xb5").ljust(FRAME_BYTES, b"\x5a")


async def test_frames_pass_both_ways_and_the_host_adds_none(function: Function) -> None:
    handles = await function.join()
    try:
        (tap,) = handles.taps
        sent = [frame(MAC, BROADCAST), frame(MAC, "02:00:00:00:00:01"), frame("02:00:00:00:00:77", BROADCAST)]
        for one in sent:
            os.write(tap, bytes(HEADER) + one)
        # Whatever the source address: to check that is the NIC's.
        links = (await function.lab.outside.run("cat", "/proc/net/dev")).text
        (line,) = [one for one in links.splitlines() if one.strip().startswith("rep0:")]
        assert int(line.split()[2]) == len(sent)
        # To the function's own address, to another's, to many, and with a VLAN's tag: all of it is the VM's.
        for target, tag in ((MAC, b""), ("02:00:00:00:00:55", b""), ("01:00:5e:00:00:42", b""), (MAC, VLAN_7)):
            came = frame("02:00:00:00:00:01", target, tag)
            await send(function, came)
            assert select.select([tap], [], [], 5)[0], target
            assert os.read(tap, 2000)[HEADER:] == came
    finally:
        close_handles(handles)


async def send(function: Function, data: bytes) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('rep0', 0)); "
        f"s.send(bytes.fromhex('{data.hex()}'))"
    )
    await function.lab.outside.run("python3", "-c", script)


async def test_it_is_the_functions_address_and_nothing_of_the_hosts(function: Function) -> None:
    handles = await function.join(queues=2)
    close_handles(handles)
    assert len(handles.taps) == 2
    shown = (await function.lab.host.run("ip", "-d", "link", "show", NAME)).text
    assert MAC in shown
    assert "mode passthru" in shown
    assert "group 4410700" in shown
    assert "UP" in (await function.flags()).split(",")
    assert not await function.has_ipv6()
    assert not await function.has_ipv6(NAME)


async def test_parted_it_is_as_before(function: Function) -> None:
    before = await function.flags(), await function.has_ipv6()
    close_handles(await function.join())
    await function.taps.part("cmfother")
    assert NAME in await function.lab.interfaces()
    await function.taps.part(NAME)
    await function.taps.part(NAME)
    assert NAME not in await function.lab.interfaces()
    assert (await function.flags(), await function.has_ipv6()) == before


async def test_it_has_its_networks_mtu_while_it_is_joined(function: Function) -> None:
    close_handles(await function.join(mtu=9000))
    assert [await function.mtu(), await function.mtu(NAME)] == [9000, 9000]
    close_handles(await function.join(mtu=1400))
    assert [await function.mtu(), await function.mtu(NAME)] == [1400, 1400]
    await function.taps.part(NAME)
    assert await function.mtu() == 1500


async def test_an_mtu_that_it_cannot_have_is_refused(function: Function) -> None:
    with pytest.raises(Refused) as caught:
        await function.join(mtu=65536)
    assert caught.value.code == "MTUNotPossible"
    assert NAME not in await function.lab.interfaces()


async def test_what_was_left_of_the_function_makes_room(function: Function) -> None:
    close_handles(await function.join("cmfold"))
    close_handles(await function.join())
    close_handles(await function.join())
    assert {one for one in await function.lab.interfaces() if one.startswith("cmf")} == {NAME}


async def test_one_that_is_in_a_bridge_is_refused(function: Function) -> None:
    await function.lab.host.ip("link add br0 type bridge")
    await function.lab.host.ip("link set vf0 master br0")
    with pytest.raises(Refused) as caught:
        await function.join()
    assert caught.value.code == "FunctionInUse"
    assert NAME not in await function.lab.interfaces()


async def test_somebody_elses_of_the_same_name_stays(function: Function) -> None:
    await function.lab.host.ip("link add link vf0 name cmftheirs type macvtap mode passthru")
    await function.taps.part("cmftheirs")
    assert "cmftheirs" in await function.lab.interfaces()


async def test_it_goes_with_its_function(function: Function) -> None:
    handles = await function.join()
    await function.lab.host.ip("link del vf0")
    assert NAME not in await function.lab.interfaces()
    await function.taps.part(NAME)
    close_handles(handles)


async def test_what_an_earlier_daemon_left_goes(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    # This process' sysfs is that of its own namespace.
    monkeypatch.setattr(functiontaps, "_seen", lambda: [NAME])
    close_handles(await function.join())
    await function.taps.keep_only([NAME, "cmfgone"])
    assert NAME in await function.lab.interfaces()
    await function.taps.keep_only([])
    assert NAME not in await function.lab.interfaces()
