"""Networks on an uplink or a bond, and their VLANs, seen from outside frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import NetworkPlan, PortPlan, UplinkPlan
from tests.contract.uplinks import UplinkContract
from tests.system.network.host.lab import BROADCAST, Tap, bridged, ethernet, nic, udp
from tests.system.network.ovs.conftest import OvsLab
from tests.system.network.ovs.outside import Outside, outside

_STRANGER = "52:54:00:77:77:77"
PLAIN, TEN = bridged("plain"), bridged("ten", vlan=10)


@pytest.fixture
def far(lab: OvsLab) -> Iterator[Outside]:
    with outside(lab.outside.path, "out0") as made:
        yield made


async def _plug(lab: OvsLab, *ports: PortPlan) -> list[Tap]:
    for network in (PLAIN, TEN):
        await lab.plane.ensure_network(network)
    return [await lab.plug(one) for one in ports]


def _say(tap: Tap, text: bytes, vlan: int | None = None, target: str = BROADCAST) -> None:
    tap.send(ethernet(tap.port.mac, udp(str(tap.port.addresses[0]), text), vlan=vlan, target=target))


def _heard(seen: list[tuple[int | None, bytes]], text: bytes) -> list[int | None]:
    """The VLANs in which it came."""
    return [vlan for vlan, frame in seen if text in frame]


async def test_frames_leave_in_the_vlan_that_is_the_ports(lab: OvsLab, far: Outside) -> None:
    untagged, access, other, trunk = await _plug(
        lab, nic("untagged", PLAIN, "10.0.0.1"), nic("access", TEN, "10.0.0.2"),
        nic("other", PLAIN, "10.0.0.3", vlan=20),
        nic("trunk", PLAIN, "10.0.0.4", trunk=(10, 30)),
    )  # fmt: skip
    _say(untagged, b"one")
    _say(access, b"two")
    _say(other, b"three")
    _say(trunk, b"four")
    _say(trunk, b"five", vlan=10)
    _say(trunk, b"six", vlan=30)
    # Not its own: neither a trunk's other VLANs, nor any of an access port.
    _say(trunk, b"strange", vlan=20)
    _say(access, b"strange", vlan=10)
    _say(untagged, b"strange", vlan=20)
    _say(trunk, b"last")
    seen = await far.until(b"last")
    for text, vlan in ((b"one", None), (b"two", 10), (b"three", 20), (b"four", None), (b"five", 10), (b"six", 30)):
        assert _heard(seen, text) == [vlan]
    assert _heard(seen, b"strange") == []
    dropped = {
        tap.port.owner: (await lab.plane.counters())[tap.port.interface].dropped_packets for tap in (trunk, access)
    }
    assert dropped == {"trunk": 1, "access": 1}


async def test_ports_get_their_vlans_only(lab: OvsLab, far: Outside) -> None:
    untagged, access, other, trunk = await _plug(
        lab, nic("untagged", PLAIN, "10.0.0.1"), nic("access", TEN, "10.0.0.2"),
        nic("other", PLAIN, "10.0.0.3", vlan=20),
        nic("trunk", PLAIN, "10.0.0.4", trunk=(10,)),
    )  # fmt: skip

    def frames(text: bytes, *vlans: int | None) -> list[bytes]:
        return [ethernet(_STRANGER, udp("192.0.2.9", b"%b %d." % (text, vlan or 0)), vlan=vlan) for vlan in vlans]

    for frame in frames(b"in", None, 10, 20, 40):
        far.send(frame)
    taps = [(untagged, [b"in 0."]), (access, [b"in 10."]), (other, [b"in 20."]), (trunk, [b"in 0.", b"in 10."])]
    seen = {tap.port.owner: await _until_all(tap, texts) for tap, texts in taps}
    # By now all of them have been where they go.
    for frame in frames(b"end", None, 10, 20):
        far.send(frame)
    for tap, texts in taps:
        seen[tap.port.owner] += await _until_all(tap, [text.replace(b"in", b"end") for text in texts])
    came = {owner: sorted(frame for frame in some if b"in " in frame) for owner, some in seen.items()}
    plain = {vlan: ethernet(_STRANGER, udp("192.0.2.9", b"in %d." % vlan)) for vlan in (0, 10, 20)}
    assert came == {
        "untagged": [plain[0]],
        "access": [plain[10]],
        "other": [plain[20]],
        "trunk": sorted([plain[0], *frames(b"in", 10)]),
    }
    # Taken away, it gets no more of it.
    await lab.plane.update(replace(trunk.port, trunk=()))
    for frame in frames(b"late", 10):
        far.send(frame)
    await access.until(b"late 10.")
    for frame in frames(b"last", None):
        far.send(frame)
    assert not any(b"late" in frame for frame in await trunk.until(b"last 0."))


async def _until_all(tap: Tap, texts: list[bytes]) -> list[bytes]:
    """What comes until each of ``texts`` has come, in whatever order."""
    left, seen = set(texts), list[bytes]()
    async with asyncio.timeout(5):
        async for frame in tap.frames():
            seen.append(frame)
            left -= {text for text in left if text in frame}
            if not left:
                return seen
    raise AssertionError


async def test_a_frame_for_one_is_not_shown_to_others(lab: OvsLab, far: Outside) -> None:
    one, other = await _plug(lab, nic("one", PLAIN, "10.0.0.1"), nic("other", PLAIN, "10.0.0.2"))
    far.send(ethernet(_STRANGER, udp("192.0.2.9", b"for one"), target=one.port.mac))
    # To an address that nobody has told of: no guarded port can have it.
    far.send(ethernet(_STRANGER, udp("192.0.2.9", b"for nobody"), target="52:54:00:88:88:88"))
    far.send(ethernet(_STRANGER, udp("192.0.2.9", b"for all")))
    assert [b"for one" in frame for frame in await one.until(b"for one")][-1]
    assert not any(b"for one" in frame or b"for nobody" in frame for frame in await other.until(b"for all"))
    _say(one, b"among us", target=other.port.mac)
    _say(one, b"outwards", target=_STRANGER)
    assert await other.receive(b"among us")
    assert _heard(await far.until(b"outwards"), b"among us") == []


async def test_addresses_behind_a_port_without_guard_are_learned(lab: OvsLab, far: Outside) -> None:
    router, other = await _plug(
        lab, nic("router", PLAIN, "10.0.0.1", source_guard=False), nic("other", PLAIN, "10.0.0.2")
    )
    inner = "52:54:00:66:66:66"
    router.send(ethernet(inner, udp("10.5.0.1", b"from within")))
    await other.receive(b"from within")
    _say(other, b"to within", target=inner)
    await router.receive(b"to within")
    _say(other, b"last")
    assert _heard(await far.until(b"last"), b"to within") == []


async def test_uplinks_are_apart_though_their_vlans_are_the_same(lab: OvsLab, far: Outside) -> None:
    await lab.host.ip(f"link add up1 type veth peer name out1 netns {lab.outside.name}")
    await lab.outside.ip("link set out1 up")
    second = NetworkPlan("second", uplink=UplinkPlan(("up1",), vlan=10))
    await lab.plane.ensure_network(second)
    # The same MAC and IP address in both.
    one, other = await _plug(lab, nic("one", TEN, "10.0.0.1"), replace(nic("one", second, "10.0.0.1"), owner="other"))
    with outside(lab.outside.path, "out1") as other_far:
        _say(one, b"here")
        _say(other, b"yonder")
        assert _heard(await far.until(b"here"), b"yonder") == []
        assert _heard(await other_far.until(b"yonder"), b"here") == []
        reply = ethernet(_STRANGER, udp("192.0.2.9", b"answer"), target=one.port.mac, vlan=10)
        other_far.send(reply)
        assert await other.receive(b"answer")
        _say(other, b"to all")
        far.send(ethernet(_STRANGER, udp("192.0.2.9", b"mine"), vlan=10))
        assert not any(b"answer" in frame or b"to all" in frame for frame in await one.until(b"mine"))


class TestUplinks(UplinkContract):
    """By Open vSwitch."""


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (bridged("lan", takeover=True), "NotSupported"),
        (bridged("more", vlan=10), "NetworksOverlap"),
        (bridged("theirs", "up9"), "UplinkInUse"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_made(lab: OvsLab, network: NetworkPlan, code: str) -> None:
    await lab.host.ip("link add up9 type veth peer name out9")
    await lab.ovs.vsctl("add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev")
    await lab.ovs.vsctl("add-port", "theirs", "up9")
    await _plug(lab)
    before = await lab.ovs.vsctl("show")
    with pytest.raises(Refused) as refused:
        await lab.plane.ensure_network(network)
    assert refused.value.code == code
    assert await lab.ovs.vsctl("show") == before
