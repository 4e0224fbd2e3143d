"""Bridges on an uplink or a bond, VLANs on them, and uplinks that come back unless somebody confirms.

Needs what the kernels of distributions have and small ones may lack: VLAN filtering in bridges, 802.1Q, bonding.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import NetworkPlan, TakeoverStage
from carmel.network.host.takeover import boot_id, now, read, write
from tests.contract.uplinks import UplinkContract
from tests.system.network.host.lab import Lab, bridged, nic, soon

_HERE, _THERE, _FAR = "192.0.2.1", "192.0.2.2", "198.51.100.9"


@pytest.fixture(autouse=True)
async def _kernel(lab: Lab) -> None:
    await lab.needs("VLAN filtering", "type bridge vlan_filtering 1")
    await lab.needs("bonding", "type bond")
    await lab.needs("802.1Q", "link up0 type vlan id 9")


class TestUplinks(UplinkContract):
    """By a bridge of the kernel's."""


async def test_networks_on_one_uplink_share_a_bridge(lab: Lab) -> None:
    await lab.plane.ensure_network(bridged("plain"))
    await lab.plane.ensure_network(bridged("ten", vlan=10))
    assert len([name for name in await lab.interfaces() if name.startswith("cmb")]) == 1


async def test_a_pass_over_an_uplink_that_is_settled_changes_nothing(lab: Lab) -> None:
    network = bridged("ten", vlan=10)
    await lab.plane.ensure_network(network)
    await lab.plug(nic("one", network, "10.0.0.1", trunk=(30, 40)))
    words = ["ip", "-o", "monitor", "link"]
    monitor = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={lab.host.path}", "--", *words, stdout=asyncio.subprocess.PIPE
    )
    assert monitor.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = asyncio.create_task(monitor.stdout.readline())
            for mtu in itertools.count(60_000):
                if first.done():
                    break
                await lab.host.ip(f"link set lo mtu {mtu}")
                await asyncio.wait([first], timeout=0.2)
            await lab.plane.ensure_network(network)
            await lab.plane.adopt([network], [nic("one", network, "10.0.0.1", trunk=(30, 40))])
            await lab.host.ip("link set lo mtu 50000")
            seen = b""
            while b"mtu 50000" not in seen:
                seen += await monitor.stdout.readline()
    finally:
        monitor.terminate()
        await monitor.wait()
    assert b"cmb" not in seen
    assert b"cmp" not in seen
    assert b"up0" not in seen


# -- uplinks with the host's own addresses ------------------------------------------------------------------------
async def _configured(lab: Lab) -> None:
    """The host is reached by up0, and reaches far networks by a router there."""
    await lab.host.ip(f"addr add {_HERE}/24 dev up0")
    await lab.host.ip("link set up0 up")
    await lab.host.ip(f"route add 198.51.100.0/24 via {_THERE} metric 7")
    await lab.host.ip(f"route add default via {_THERE} src {_HERE}")
    await lab.host.ip("addr add fd00:7::1/64 dev up0 nodad")
    await lab.host.ip("route add default via fd00:7::2")
    await lab.outside.ip(f"addr add {_THERE}/24 dev out0")
    await lab.outside.ip(f"addr add {_FAR}/32 dev out0")


async def _is_reached(lab: Lab) -> bool:
    near = await lab.outside.run("busybox", "ping", "-c", "1", "-W", "1", _HERE, check=False)
    far = await lab.host.run("busybox", "ping", "-c", "1", "-W", "1", _FAR, check=False)
    return (near.status, far.status) == (0, 0)


async def _on(lab: Lab, interface: str) -> bool:
    return _HERE in (await lab.host.run("ip", "-o", "addr", "show", interface)).text


async def _routes(lab: Lab) -> list[str]:
    """Without what a cable that was just moved adds (linkdown, link-local)."""
    texts = [(await lab.host.run("ip", "-o", f"-{family}", "route")).text for family in (4, 6)]
    lines = "".join(texts).replace(" linkdown", "").splitlines()
    return sorted(line.strip() for line in lines if "fe80" not in line)


async def _bridge(lab: Lab) -> str | None:
    return next((name for name in await lab.interfaces() if name.startswith("cmb")), None)


def _record(lab: Lab) -> Path:
    [file] = (lab.folder / "state").glob("*.json")
    return file


def _only_way_in(seconds: int = 60) -> NetworkPlan:
    return bridged("lan", takeover=True, confirm_seconds=seconds)


async def test_the_only_way_in_is_refused_unless_it_is_to_be_taken_over(lab: Lab) -> None:
    await _configured(lab)
    with pytest.raises(Refused, match=r"up0 has addresses of this host \(192\.0\.2\.1/24, fd00:7::1/64\)") as refused:
        await lab.plane.ensure_network(bridged("lan"))
    assert refused.value.code == "UplinkInUse"
    assert await _bridge(lab) is None
    assert await _is_reached(lab)


async def test_what_is_confirmed_stays_and_is_given_back_with_the_network(lab: Lab) -> None:
    await _configured(lab)
    routes = await _routes(lab)
    await lab.plane.ensure_network(_only_way_in())
    bridge = await _bridge(lab)
    assert bridge is not None
    assert await _routes(lab) == sorted(line.replace("up0", bridge) for line in routes)
    assert await _on(lab, bridge)
    assert not await _on(lab, "up0")
    assert await soon(lambda: _is_reached(lab))
    taken = await lab.plane.takeover(_only_way_in())
    assert taken is not None
    assert (taken.stage, taken.deadline - taken.started_at) == (TakeoverStage.WAITING, timedelta(seconds=60))
    await lab.plane.confirm("lan")
    assert await lab.plane.takeover(_only_way_in()) == replace(taken, stage=TakeoverStage.CONFIRMED)
    with pytest.raises(Refused, match="nothing of the network lan waits"):
        await lab.plane.confirm("lan")
    await lab.plane.remove_network("lan")
    assert await _bridge(lab) is None
    assert await _on(lab, "up0")
    assert await _routes(lab) == routes
    assert await soon(lambda: _is_reached(lab))


async def test_what_nobody_confirms_comes_back_by_itself(lab: Lab) -> None:
    await _configured(lab)
    routes = await _routes(lab)
    await lab.plane.ensure_network(_only_way_in(2))

    async def back() -> bool:
        return await _on(lab, "up0")

    assert await soon(back)
    assert await soon(lambda: _is_reached(lab))
    assert await _routes(lab) == routes
    assert await _bridge(lab) is None
    with pytest.raises(Refused, match="the uplink up0 was put back") as refused:
        await lab.plane.ensure_network(_only_way_in(2))
    assert refused.value.code == "RolledBack"
    taken = await lab.plane.takeover(_only_way_in(2))
    assert taken is not None
    assert taken.stage is TakeoverStage.ROLLED_BACK
    await lab.plane.adopt([_only_way_in(2)], [])
    assert await _bridge(lab) is None
    # Removed and made again, it is tried once more.
    await lab.plane.remove_network("lan")
    await lab.plane.ensure_network(_only_way_in())
    assert await _bridge(lab) is not None


_DAEMON = """
import asyncio, sys
from pathlib import Path
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.run import SystemRunner
from tests.system.network.host.test_uplink import _only_way_in

async def main(folder: Path, namespace: Path) -> None:
    plane = HostDataPlane(SystemRunner(), folder / "run", folder / "state", namespace=namespace)
    await plane.ensure_network(_only_way_in(3))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_a_daemon_that_is_killed_leaves_nobody_cut_off(lab: Lab) -> None:
    await _configured(lab)
    root = Path(__file__).parents[4]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DAEMON, lab.folder, lab.host.path, cwd=root, stdout=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": f"{root}/src:{root}"},
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert not await _on(lab, "up0")

    async def back() -> bool:
        return await _on(lab, "up0")

    assert await soon(back)
    assert await soon(lambda: _is_reached(lab))


async def test_the_next_daemon_does_it_if_the_watching_process_was_killed_too(lab: Lab) -> None:
    await _configured(lab)
    await lab.plane.ensure_network(_only_way_in())
    listed = (await lab.host.run("pgrep", "-f", f"network.host.rollback {_record(lab)}")).text
    for pid in listed.split():
        await lab.host.run("kill", "-9", pid)
    record = read(_record(lab))
    assert record is not None
    write(_record(lab), replace(record, deadline=now() - 1))
    await lab.restart()
    await lab.plane.adopt([_only_way_in()], [])
    assert await _on(lab, "up0")
    assert await _bridge(lab) is None


async def test_after_a_reboot_what_was_not_confirmed_is_not_tried_again(lab: Lab) -> None:
    await _configured(lab)
    await lab.plane.ensure_network(_only_way_in())
    record = read(_record(lab))
    assert record is not None
    assert record.boot == boot_id()
    await lab.plane.remove_network("lan")
    write(lab.folder / "state" / f"{record.bridge}.json", replace(record, boot="another"))
    await lab.restart()
    await lab.plane.adopt([_only_way_in()], [])
    assert await _on(lab, "up0")
    with pytest.raises(Refused, match="was put back"):
        await lab.plane.ensure_network(_only_way_in())
