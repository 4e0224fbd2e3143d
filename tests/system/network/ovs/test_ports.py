"""Limits, what a crash leaves, an Open vSwitch that is started anew, and a pass that finds nothing to do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import Rate
from carmel.network.ovs.dataplane import OvsDataPlane
from carmel.network.ovs.openflow import OpenFlow
from carmel.network.ovs.ovsdb import Ovsdb
from carmel.network.ovs.switch import Switch
from carmel.run import SystemRunner
from tests.system.network.host.lab import Tap, ethernet, nat, port, udp
from tests.system.network.ovs.conftest import OvsLab

_FRAMES = 60
_LARGE = bytes(1200)


async def _large_frames_that_come(source: Tap, target: Tap) -> int:
    """Of ``_FRAMES`` that are sent at once, each of 1,242 bytes. A small one comes last, however often it is lost."""
    own = str(source.port.addresses[0])
    for _ in range(_FRAMES):
        source.send(ethernet(source.port.mac, udp(own, _LARGE)))

    async def repeat() -> None:
        while True:
            source.send(ethernet(source.port.mac, udp(own, b"the end")))
            await asyncio.sleep(0.05)

    repeating = asyncio.create_task(repeat())
    try:
        return sum(_LARGE in frame for frame in await target.until(b"the end", 20))
    finally:
        repeating.cancel()


@pytest.mark.parametrize("direction", ["egress", "ingress"])
async def test_a_limit_drops_what_is_beyond_it_and_goes(lab: OvsLab, direction: str) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    source, target = await lab.plug(port("one", network)), await lab.plug(port("two", network))
    limited = (source if direction == "egress" else target).port
    assert await _large_frames_that_come(source, target) == _FRAMES
    await lab.plane.update(replace(limited, **{direction: Rate(64, 20)}))  # type: ignore[arg-type]
    assert "rate=64 burst_size=160" in await lab.ovs.run("ovs-ofctl", "-O", "OpenFlow14", "dump-meters", "cmb-ports")
    # Twenty kilobytes are sixteen frames; some more while they are on their way.
    assert 14 <= await _large_frames_that_come(source, target) < _FRAMES
    await lab.plane.update(limited)
    assert await _large_frames_that_come(source, target) == _FRAMES
    assert "meter=" not in await lab.ovs.run("ovs-ofctl", "-O", "OpenFlow14", "dump-meters", "cmb-ports")


async def test_a_pass_that_finds_nothing_to_do_does_nothing(lab: OvsLab, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    watcher = port("watcher", network)
    await lab.plug(watcher)
    plan = replace(port("one", network), ingress=Rate(1_000), egress=Rate(2_000, 64), mirror_to=watcher.interface)
    await lab.plug(plan)
    done: list[object] = []

    async def bundle(_self: OpenFlow, lines: list[str]) -> None:
        done.extend(lines)

    async def apply(_self: Ovsdb, steps: list[object]) -> None:
        done.extend(steps)

    monkeypatch.setattr(OpenFlow, "bundle", bundle)
    monkeypatch.setattr(Ovsdb, "apply", apply)
    before = await lab.ovs.vsctl("list", "Interface"), await lab.ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg")
    await lab.plane.ensure_network(network)
    await lab.plane.update(plan)
    await lab.plane.adopt([network], [plan, watcher])
    assert done == []
    assert await lab.ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before[1]


_DAEMON = """
import asyncio, sys
from pathlib import Path
from carmel.network.dataplane import Rate
from carmel.network.ovs.dataplane import OvsDataPlane
from carmel.network.ovs.switch import Switch
from carmel.run import SystemRunner
from dataclasses import replace
from tests.system.network.host.lab import nat, port

async def main(folder: Path, namespace: Path, sockets: Path) -> None:
    switch = Switch(SystemRunner(), sockets, "netdev")
    folders = folder / "run", folder / "state"
    plane = OvsDataPlane(SystemRunner(), *folders, switch, namespace=namespace, firewalled=False)
    await plane.ensure_network(nat())
    await plane.attach(replace(port("one", nat()), egress=Rate(1000)))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


async def _killed(lab: OvsLab) -> None:
    """A daemon that made a network and a port, and was killed; its taps go with it."""
    root = Path(__file__).parents[4]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DAEMON, lab.folder, lab.host.path, lab.ovs.folder, cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_after_a_crash_what_is_unwanted_goes_and_nobody_elses_is_touched(lab: OvsLab) -> None:
    await lab.host.ip("link add name cmp0 type veth peer name theirs0")
    await lab.ovs.vsctl("add-br", "cmb-theirs", "--", "set", "bridge", "cmb-theirs", "datapath_type=netdev")
    await lab.ovs.vsctl("add-port", "cmb-theirs", "theirs0")
    theirs, interfaces = await lab.ovs.vsctl("show"), await lab.interfaces()
    await _killed(lab)
    assert "cmb-ports" in await lab.ovs.vsctl("list-br")
    # One that somebody plugged into our bridge goes with the bridge; the interface itself is theirs.
    await lab.ovs.vsctl("add-port", "cmb-ports", "cmp0")
    await lab.plane.adopt([], [])
    assert await lab.ovs.vsctl("show") == theirs
    assert await lab.interfaces() == interfaces
    assert list((lab.folder / "run").iterdir()) == []


async def test_after_a_crash_what_is_wanted_goes_on(lab: OvsLab) -> None:
    await _killed(lab)
    before = [file.read_text() for file in (lab.folder / "run").glob("*.pid")]
    await lab.plane.adopt([nat()], [port("one", nat())])
    assert [file.read_text() for file in (lab.folder / "run").glob("*.pid")] == before
    assert "cmp" not in await lab.ovs.vsctl("show")
    vm = await lab.boot(port("one", nat()))
    assert await vm.dhcp() == vm.port.addresses[0]


async def test_an_open_vswitch_that_is_started_anew_is_closed_until_it_is_told_again(lab: OvsLab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    one, other = await lab.plug(port("one", network)), await lab.plug(port("two", network))
    await lab.ovs.end("ovs-vswitchd", signal.SIGKILL)
    await lab.ovs.start_switching()

    def say(text: bytes) -> None:
        one.send(ethernet(one.port.mac, udp(str(one.port.addresses[0]), text)))

    say(b"too early")
    counts = await lab.plane.counters()
    assert counts[one.port.interface].sent_packets >= 1
    say(b"now")
    assert not any(b"too early" in frame for frame in await other.until(b"now"))


async def test_what_somebody_removed_is_put_back(lab: OvsLab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    vm = await lab.boot(port("one", network))
    await lab.ovs.vsctl("del-br", "cmb-ports")
    await lab.plane.ensure_network(network)
    assert await vm.dhcp() == vm.port.addresses[0]


async def test_a_bridge_of_that_name_that_is_not_carmels_is_refused(lab: OvsLab) -> None:
    await lab.ovs.vsctl("add-br", "cmb-ports", "--", "set", "bridge", "cmb-ports", "datapath_type=netdev")
    with pytest.raises(Refused, match="Open vSwitch has a bridge cmb-ports that Carmel did not make") as refused:
        await lab.plane.ensure_network(nat())
    assert refused.value.code == "NameTaken"
    assert (await lab.ovs.vsctl("list-br")).split() == ["cmb-ports"]


async def test_without_open_vswitch_the_reason_is_said(lab: OvsLab) -> None:
    switch = Switch(SystemRunner(), lab.folder / "nothing")
    plane = OvsDataPlane(SystemRunner(), lab.folder / "run", lab.folder / "state", switch, namespace=lab.host.path)
    with pytest.raises(Refused, match="there is no Open vSwitch here") as refused:
        await plane.ensure_network(nat())
    assert refused.value.code == "NoOpenVSwitch"
    await plane.aclose()
