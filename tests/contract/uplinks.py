"""What every data plane promises of networks on uplinks: VLANs, trunks, bonds, and large frames.

Run by a class that has a fixture ``lab``: a ``Lab`` with the data plane, and nothing on it yet.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import BondMode
from tests.system.network.host.lab import Lab, Tap, bridged, ethernet, nic, soon, udp


class UplinkContract:
    """By what guests on them reach."""

    async def test_access_and_trunk_ports_see_their_vlans_only(self, lab: Lab) -> None:
        await lab.needs("802.1Q", "link up0 type vlan id 9")
        await lab.outside.ip("link add link out0 name out0.10 type vlan id 10")
        await lab.outside.ip("link add link out0 name out0.20 type vlan id 20")
        for name, address in (("out0", "10.1.0.2"), ("out0.10", "10.10.0.2"), ("out0.20", "10.20.0.2")):
            await lab.outside.ip(f"addr add {address}/24 dev {name}")
            await lab.outside.ip(f"link set {name} up")
        plain, ten = bridged("plain"), bridged("ten", vlan=10)
        await lab.plane.ensure_network(plain)
        await lab.plane.ensure_network(ten)
        untagged = await lab.boot(nic("untagged", plain, "10.1.0.5"))
        access = await lab.boot(nic("access", ten, "10.10.0.5"))
        other = await lab.boot(nic("other", plain, "10.20.0.5", vlan=20))
        for vm in (untagged, access, other):
            await vm.space.ip(f"addr add {vm.port.addresses[0]}/24 dev eth0")
        assert await untagged.reaches("10.1.0.2")
        assert await access.reaches("10.10.0.2")
        assert await other.reaches("10.20.0.2")
        # Tagged by the guest itself: the VLAN is not its own.
        await access.space.ip("link add link eth0 name eth0.20 type vlan id 20")
        await access.space.ip("addr flush dev eth0")
        await access.space.ip("addr add 10.10.0.5/24 dev eth0.20")
        await access.space.ip("link set eth0.20 up")
        assert not await access.reaches("10.10.0.2")
        # As a trunk it may, and no longer when the VLAN is taken away.
        trunk = replace(untagged.port, trunk=(20,), addresses=(IPv4Address("10.1.0.5"), IPv4Address("10.20.0.6")))
        await lab.plane.update(trunk)
        await untagged.space.ip("link add link eth0 name eth0.20 type vlan id 20")
        await untagged.space.ip("addr add 10.20.0.6/24 dev eth0.20")
        await untagged.space.ip("link set eth0.20 up")
        assert await untagged.reaches("10.20.0.2")
        assert await untagged.reaches("10.1.0.2")
        await lab.plane.update(replace(trunk, trunk=()))
        assert not await untagged.reaches("10.20.0.2")

    async def test_a_spoofed_vlan_never_leaves(self, lab: Lab) -> None:
        ten, twenty = bridged("ten", vlan=10), bridged("twenty", vlan=20)
        await lab.plane.ensure_network(ten)
        await lab.plane.ensure_network(twenty)
        sender = await lab.plug(nic("sender", ten, "10.0.0.1", source_guard=False))
        friend, stranger = (
            await lab.plug(nic("friend", ten, "10.0.0.2")),
            await lab.plug(nic("stranger", twenty, "10.0.0.3")),
        )
        second = await lab.plug(nic("second", twenty, "10.0.0.4"))
        _hello(sender, b"hopping", vlan=20)
        _hello(sender, b"untagged")
        await friend.until(b"untagged")
        _hello(second, b"the stranger's own")
        assert not any(b"hopping" in frame or b"untagged" in frame for frame in await stranger.until(b"stranger's own"))

    async def test_a_bond_carries_on_by_its_other_member(self, lab: Lab) -> None:
        await lab.host.ip(f"link add up1 type veth peer name out1 netns {lab.outside.name}")
        await lab.outside.ip("link add both type bridge")
        for name in ("out0", "out1"):
            await lab.outside.ip(f"link set {name} master both up")
        await lab.outside.ip("addr add 10.1.0.2/24 dev both")
        await lab.outside.ip("link set both up")
        network = bridged("bonded", "up0", "up1", bond=BondMode.ACTIVE_BACKUP)
        await lab.plane.ensure_network(network)
        vm = await lab.boot(nic("one", network, "10.1.0.5"))
        await vm.space.ip("addr add 10.1.0.5/24 dev eth0")
        assert await vm.reaches("10.1.0.2")
        for down, up in (("out0", "out1"), ("out1", "out0")):
            await lab.outside.ip(f"link set {up} up")
            await lab.outside.ip(f"link set {down} down")
            assert await soon(lambda: vm.reaches("10.1.0.2"))
        await lab.plane.detach(vm.port.interface)
        await lab.plane.remove_network("bonded")
        assert await lab.interfaces() - {"bond0"} == {"lo", "up0", "up1"}

    async def test_jumbo_frames_pass_where_the_mtu_says_so(self, lab: Lab) -> None:
        await lab.outside.ip("addr add 10.1.0.2/24 dev out0")
        await lab.outside.ip("link set out0 mtu 9000")
        network = bridged("wide", mtu=9000)
        await lab.plane.ensure_network(network)
        vm = await lab.boot(nic("one", network, "10.1.0.5"))
        await vm.space.ip("link set eth0 mtu 9000")
        await vm.space.ip("addr add 10.1.0.5/24 dev eth0")
        assert await vm.reaches("10.1.0.2")
        large = await vm.space.run("busybox", "ping", "-c", "1", "-W", "1", "-s", "8900", "10.1.0.2", check=False)
        assert large.status == 0
        with pytest.raises(Refused, match="an MTU of 20000 is not offered"):
            await lab.plane.ensure_network(bridged("too-wide", mtu=20_000))

    async def test_an_uplink_is_wide_as_long_as_a_network_needs_it(self, lab: Lab) -> None:
        wide, usual = bridged("wide", mtu=9000), bridged("usual", vlan=10)
        await lab.plane.ensure_network(usual)
        assert await _mtu(lab) == 1500
        await lab.plane.ensure_network(wide)
        assert await _mtu(lab) == 9000
        await lab.plane.ensure_network(replace(wide, mtu=4000))
        assert await _mtu(lab) == 4000
        await lab.plane.remove_network("usual")
        await lab.plane.remove_network("wide")
        assert await _mtu(lab) == 1500

    async def test_what_an_uplink_has_of_its_own_stays(self, lab: Lab) -> None:
        await lab.host.ip("link set up0 mtu 4000")
        await lab.plane.ensure_network(bridged("usual"))
        assert await _mtu(lab) == 4000
        # Set by somebody else meanwhile.
        await lab.plane.ensure_network(bridged("wide", vlan=10, mtu=9000))
        await lab.host.ip("link set up0 mtu 8000")
        await lab.plane.remove_network("wide")
        await lab.plane.remove_network("usual")
        assert await _mtu(lab) == 8000


async def _mtu(lab: Lab) -> int:
    """Of the uplink."""
    words = (await lab.host.run("ip", "link", "show", "up0")).text.split()
    return int(words[words.index("mtu") + 1])


def _hello(tap: Tap, text: bytes, vlan: int | None = None) -> None:
    tap.send(ethernet(tap.port.mac, udp(str(tap.port.addresses[0]), text), vlan=vlan))
