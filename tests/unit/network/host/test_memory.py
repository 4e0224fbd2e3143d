"""What was realised is remembered whole, of this boot only."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from carmel.errors import CarmelError
from carmel.network.dataplane import BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.memory import Memory, Realised
from carmel.network.host.takeover import boot_id

NETWORKS = (
    NetworkPlan("inner", NatPlan(IPv4Network("10.77.0.0/24"), dhcp=False), mtu=1400),
    NetworkPlan("lan", uplink=UplinkPlan(("a", "b"), BondMode.LACP, 7)),
)
PORTS = (
    PortPlan(
        "uid",
        "eth0",
        "lan",
        "52:54:00:00:00:01",
        vlan=5,
        trunk=(6, 7),
        addresses=(IPv4Address("192.0.2.1"), IPv6Address("fd00::1")),
        source_guard=False,
        ingress=Rate(1000),
        egress=Rate(2000, 64),
        mirror_to="cmp0123456789",
        representor="pf0vf3",
    ),
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "made" / "realised.json")
    assert memory.read() == Realised(boot_id())
    memory.write(NETWORKS, PORTS)
    assert Memory(tmp_path / "made" / "realised.json").read() == Realised(boot_id(), NETWORKS, PORTS)


def test_nothing_realised_leaves_no_file(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "realised.json")
    memory.write(NETWORKS, ())
    memory.write((), ())
    assert list(tmp_path.iterdir()) == []


def test_what_is_of_an_earlier_boot_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "realised.json"
    Memory(file).write(NETWORKS, PORTS)
    file.write_bytes(file.read_bytes().replace(boot_id().encode(), b"another"))
    assert Memory(file).read() == Realised(boot_id())


def test_what_cannot_be_understood_is_not_taken_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "realised.json"
    file.write_text('{"boot": "x", "networks": [{"name": 5}]}')
    assert Memory(file).read() is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CarmelError) as caught:
        Memory(tmp_path / "file" / "realised.json").write(NETWORKS, ())
    assert caught.value.code == "NotNoted"
