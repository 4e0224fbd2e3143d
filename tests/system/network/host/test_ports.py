"""Limits, mirrors, counters, queues; what a crash leaves; a pass that finds nothing to do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import PortCount, Rate
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.network.host.netlink import Netlink
from carmel.network.host.steps import Step
from carmel.run import Command, Result
from tests.system.network.host.lab import Lab, Tap, ethernet, nat, port, udp

_FRAME_BYTES = 1500
_KBPS = 4_000


async def _seconds_for(source: Tap, target: Tap, frames: int) -> float:
    """How long it takes until ``target`` has had ``frames`` full frames."""
    text = bytes(_FRAME_BYTES - 28)
    mac, address = source.port.mac, str(source.port.addresses[0])
    arrived = 0
    begun = time.monotonic()
    async with asyncio.timeout(30):
        frame = ethernet(mac, udp(address, text))
        sent = 0
        async for got in _with_pushes(source, target, frame):
            sent += 1
            if len(got) == len(frame):
                arrived += 1
                if arrived == frames:
                    return time.monotonic() - begun
    raise AssertionError


async def _with_pushes(source: Tap, target: Tap, frame: bytes):  # type: ignore[no-untyped-def]
    """Keep 20 frames under way: fewer than any queue holds."""
    under_way = 0
    frames = target.frames()
    while True:
        while under_way < 8:
            source.send(frame)
            under_way += 1
        got = await anext(frames)
        if len(got) == len(frame):
            under_way -= 1
        yield got


@pytest.mark.parametrize("direction", ["egress", "ingress"])
async def test_a_limit_holds_and_goes(lab: Lab, direction: str) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    source, target = await lab.plug(port("one", network)), await lab.plug(port("two", network))
    limited = source if direction == "egress" else target
    burst = 20
    frames = 100
    free = await _seconds_for(source, target, frames)
    await lab.plane.update(replace(limited.port, **{direction: Rate(_KBPS, burst)}))  # type: ignore[arg-type]
    slow = await _seconds_for(source, target, frames)
    # What does not pass at once takes its time; the kernel counts the Ethernet header.
    expected = (frames * (_FRAME_BYTES + 14) - burst * 1000) * 8 / (_KBPS * 1000)
    assert slow > expected * 0.9
    assert slow < expected * 1.5 + free
    await lab.plane.update(limited.port)
    assert await _seconds_for(source, target, frames) < slow / 2
    assert not [name for name in await lab.interfaces() if name.startswith("cmi")]


async def test_a_mirror_gets_both_directions_and_ends(lab: Lab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    watcher = await lab.plug(port("watcher", network))
    one = await lab.plug(replace(port("one", network), mirror_to=watcher.port.interface, egress=Rate(10_000)))
    other = await lab.plug(port("other", network))
    there = ethernet(one.port.mac, udp(str(one.port.addresses[0]), b"there"), target=other.port.mac)
    back = ethernet(other.port.mac, udp(str(other.port.addresses[0]), b"and back"), target=one.port.mac)
    # So that the bridge has learned both, and floods neither.
    for tap, address in ((one, b"x"), (other, b"y")):
        tap.send(ethernet(tap.port.mac, udp(str(tap.port.addresses[0]), address)))
    one.send(there)
    assert await other.receive(b"there") == there
    # Only now: of frames that a switch reads at once, the last may overtake the first.
    other.send(back)
    seen = await watcher.until(b"and back")
    assert there in seen
    assert seen[-1] == back
    await lab.plane.update(replace(one.port, mirror_to=None))
    one.send(there)
    assert await other.receive(b"there") == there
    other.send(ethernet(other.port.mac, udp(str(other.port.addresses[0]), b"to all")))
    assert not any(b"there" in frame for frame in await watcher.until(b"to all"))


async def test_counters_agree_with_what_was_sent(lab: Lab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    one, other = await lab.plug(port("one", network)), await lab.plug(port("two", network))
    frame = ethernet(one.port.mac, udp(str(one.port.addresses[0]), bytes(200)))
    for _ in range(10):
        one.send(frame)
    one.send(ethernet(one.port.mac, udp(str(one.port.addresses[0]), b"last")))
    seen = await other.until(b"last")
    counts = await lab.plane.counters()
    assert counts[one.port.interface] == PortCount(0, 0, 11, 10 * len(frame) + 14 + 28 + 4, 0)
    assert counts[other.port.interface].received_packets == len(seen) == 11


async def test_many_queues_are_as_many_descriptors_of_one_port(lab: Lab) -> None:
    await lab.plane.ensure_network(nat())
    tap = await lab.plug(port("one", nat()), queues=4)
    assert len(tap.handles.taps) == 4
    assert len(tap.handles.vhost) == (4 if os.access("/dev/vhost-net", os.R_OK | os.W_OK) else 0)
    assert not any(os.get_inheritable(fd) for fd in tap.handles.taps)
    for fd in tap.handles.taps:
        os.close(fd)
    assert tap.port.interface not in await lab.interfaces()


async def test_a_pass_that_finds_nothing_to_do_does_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    watcher = port("watcher", network)
    await lab.plug(watcher)
    plan = replace(port("one", network), ingress=Rate(1_000), egress=Rate(2_000, 64), mirror_to=watcher.interface)
    await lab.plug(plan)
    applied: list[Step] = []
    apply = Netlink.apply

    async def noting(self: Netlink, steps: Sequence[Step]) -> None:
        applied.extend(steps)
        await apply(self, steps)

    monkeypatch.setattr(Netlink, "apply", noting)
    before = await _rules_and_servers(lab)
    await lab.plane.ensure_network(network)
    await lab.plane.update(plan)
    await lab.plane.adopt([network], [plan, watcher])
    assert applied == []
    assert await _rules_and_servers(lab) == before


async def _rules_and_servers(lab: Lab) -> tuple[str, list[str]]:
    rules = (await lab.host.run("nft", "--handle", "list", "ruleset")).text
    return rules, [file.read_text() for file in sorted((lab.folder / "run").glob("*.pid"))]


_DAEMON = """
import asyncio, os, sys
from pathlib import Path
from carmel.network.dataplane import Rate
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.run import SystemRunner
from dataclasses import replace
from tests.system.network.host.lab import nat, port

async def main(folder: Path, namespace: Path) -> None:
    plane = HostDataPlane(SystemRunner(), folder / "run", folder / "state", namespace=namespace)
    await plane.ensure_network(nat())
    await plane.attach(replace(port("one", nat()), egress=Rate(1000)))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def _killed_daemon(lab: Lab) -> None:
    """One that made a network and a port, and was killed; its taps go with it."""
    root = Path(__file__).parents[4]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DAEMON, lab.folder, lab.host.path, cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_after_a_crash_what_is_unwanted_goes_and_nobody_elses_is_touched(lab: Lab) -> None:
    await lab.host.ip("link add cmb0 type bridge")
    await lab.host.ip("link add theirs type bridge")
    await lab.host.run("nft", "add", "table", "bridge", "theirs")
    theirs = await lab.interfaces()
    await _killed_daemon(lab)
    [pid] = [int(file.read_text()) for file in (lab.folder / "run").glob("*.pid")]
    assert {name[:3] for name in await lab.interfaces() - theirs} == {"cmb", "cmi"}
    await lab.plane.adopt([], [])
    assert await lab.interfaces() == theirs
    # Ended, waited for or not yet: proc_pid_stat(5).
    assert (await lab.host.run("ps", "-o", "state=", "-p", str(pid), check=False)).text.strip() in {"", "Z", "X"}
    assert list((lab.folder / "run").iterdir()) == []
    tables = (await lab.host.run("nft", "list", "tables")).text
    assert "table bridge theirs" in tables
    assert "carmel" not in tables


async def test_after_a_crash_what_is_wanted_goes_on(lab: Lab) -> None:
    await _killed_daemon(lab)
    before = [file.read_text() for file in (lab.folder / "run").glob("*.pid")]
    await lab.plane.adopt([nat()], [port("one", nat())])
    assert [file.read_text() for file in (lab.folder / "run").glob("*.pid")] == before
    assert not [name for name in await lab.interfaces() if name.startswith(("cmp", "cmi"))]
    vm = await lab.boot(port("one", nat()))
    assert await vm.dhcp() == vm.port.addresses[0]


async def test_what_somebody_removed_is_put_back(lab: Lab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    vm = await lab.boot(port("one", network))
    [bridge] = [name for name in await lab.interfaces() if name.startswith("cmb")]
    await lab.host.ip(f"link delete {bridge}")
    await lab.host.run("nft", "flush", "ruleset")
    await lab.plane.ensure_network(network)
    assert await vm.dhcp() == vm.port.addresses[0]
    assert "carmel-nat" in (await lab.host.run("nft", "list", "ruleset")).text


_ROOTLESS = """
import asyncio, sys
from pathlib import Path
from carmel.errors import Refused
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.run import SystemRunner
from tests.system.network.host.lab import nat

async def main(folder: Path) -> None:
    plane = HostDataPlane(SystemRunner(), folder / "run", folder / "state")
    try:
        await plane.ensure_network(nat())
    except Refused as refused:
        print(refused.code, refused.message)
    await plane.aclose()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_without_privilege_the_reason_is_said(lab: Lab) -> None:
    root = Path(__file__).parents[4]
    path = f"PYTHONPATH={root}/src:{root}"
    caps = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    result = await lab.host.run(*caps, "env", path, sys.executable, "-c", _ROOTLESS, lab.folder)
    assert result.text.strip() == "NotPermitted only root, or who has CAP_NET_ADMIN, may make host networks"
    assert await lab.interfaces() == {"lo", "up0"}


class _NoPrograms:
    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        raise Refused("the program nft is not installed", code="ProgramMissing")


async def test_a_host_without_the_programs_starts_and_refuses(lab: Lab) -> None:
    plane = HostDataPlane(_NoPrograms(), lab.folder / "run", lab.folder / "state", namespace=lab.host.path)
    await plane.adopt([], [])
    with pytest.raises(Refused, match="nft is not installed"):
        await plane.ensure_network(nat())
    assert await lab.interfaces() == {"lo", "up0"}
    await plane.aclose()
