"""What every data plane does, the fake one and the kernel's. A test class inherits it and has a fixture ``plane``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from carmel.errors import CarmelError, NotFound, Refused
from carmel.network.dataplane import DataPlane, NatPlan, NetworkPlan, PortHandles, PortPlan, UplinkPlan

NETWORK = NetworkPlan("inner", NatPlan(IPv4Network("10.77.0.0/24")))
OTHER = NetworkPlan("other", NatPlan(IPv4Network("10.88.0.0/24")))
ONE = PortPlan("vm-1", "eth0", "inner", "52:54:00:00:00:01", addresses=(IPv4Address("10.77.0.11"),))
TWO = PortPlan("vm-2", "eth0", "inner", "52:54:00:00:00:02", addresses=(IPv4Address("10.77.0.12"),))


@contextlib.contextmanager
def held(handles: PortHandles) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in (*handles.taps, *handles.vhost):
            os.close(fd)


class DataPlaneContract:
    async def test_a_port_lives_as_long_as_its_descriptors(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        handles = await plane.attach(ONE, queues=2)
        assert len(handles.taps) == 2
        with held(handles):
            assert set(await plane.counters()) == {ONE.interface}
            with pytest.raises(Refused) as refused:
                await plane.attach(ONE)
            assert refused.value.code == "PortInUse"
        assert await plane.counters() == {}
        with held(await plane.attach(ONE)):
            assert set(await plane.counters()) == {ONE.interface}

    async def test_every_call_may_be_repeated(self, plane: DataPlane) -> None:
        for _ in range(2):
            await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            for _ in range(2):
                await plane.update(ONE)
            for _ in range(2):
                await plane.detach(ONE.interface)
        for _ in range(2):
            await plane.remove_network("inner")

    async def test_a_network_with_ports_stays(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            with pytest.raises(Refused) as refused:
                await plane.remove_network("inner")
            assert refused.value.code == "NetworkInUse"
            assert set(await plane.counters()) == {ONE.interface}

    async def test_adopting_forgets_ports_whose_vm_is_gone(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            await plane.adopt([NETWORK], [ONE, TWO])
            assert set(await plane.counters()) == {ONE.interface}
            with pytest.raises(NotFound):
                await plane.update(TWO)
        await plane.adopt([NETWORK], [ONE, TWO])
        await plane.remove_network("inner")

    async def test_adopting_goes_on_with_what_was_realised(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            assert await plane.attached() == {ONE.interface}
            stolen = replace(ONE, addresses=TWO.addresses)
            await plane.adopt([replace(NETWORK, nat=NatPlan(IPv4Network("10.99.0.0/24"))), OTHER], [stolen])
            assert await plane.attached() == {ONE.interface}
            assert {name: set(some) for name, some in (await plane.addresses()).items()} == {
                ONE.interface: set(ONE.addresses)
            }
            with pytest.raises(NotFound):
                await plane.attach(replace(TWO, network=OTHER.name))

    async def test_adopting_nothing_leaves_nothing(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            await plane.adopt([], [ONE])
            assert await plane.attached() == set()
            with pytest.raises(NotFound):
                await plane.attach(TWO)

    async def test_the_addresses_of_a_port_are_known(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            assert {name: set(some) for name, some in (await plane.addresses()).items()} == {
                ONE.interface: {IPv4Address("10.77.0.11")}
            }

    @pytest.mark.parametrize(
        ("port", "code"),
        [
            (replace(TWO, mac=ONE.mac), "MacInUse"),
            (replace(TWO, addresses=ONE.addresses), "AddressInUse"),
            (replace(TWO, addresses=(IPv4Address("10.77.0.1"),)), "InvalidAddress"),
            (replace(TWO, addresses=(IPv4Address("192.0.2.1"),)), "InvalidAddress"),
            (replace(TWO, vlan=5), "NoVlans"),
            (replace(TWO, vlan=4095), "InvalidVlan"),
            (replace(TWO, mac="53:54:00:00:00:02"), "InvalidMac"),
            (replace(TWO, mirror_to=TWO.interface), "InvalidMirror"),
            (replace(TWO, network="nowhere"), "NotFound"),
        ],
    )
    async def test_a_port_that_cannot_be_is_refused_and_not_made(
        self, plane: DataPlane, port: PortPlan, code: str
    ) -> None:
        await plane.ensure_network(NETWORK)
        with held(await plane.attach(ONE)):
            with pytest.raises(CarmelError) as refused:
                await plane.attach(port)
            assert refused.value.code == code
            assert set(await plane.counters()) == {ONE.interface}

    @pytest.mark.parametrize(
        ("network", "code"),
        [
            (NetworkPlan("two", NatPlan(IPv4Network("10.77.0.0/16"))), "NetworksOverlap"),
            (NetworkPlan("two", NatPlan(IPv4Network("224.0.0.0/24"))), "InvalidSubnet"),
            (NetworkPlan("two", NatPlan(IPv4Network("10.0.0.0/8"))), "InvalidSubnet"),
            (NetworkPlan("two", NatPlan(IPv4Network("10.78.0.0/24")), mtu=100), "InvalidMtu"),
            (NetworkPlan("two", uplink=UplinkPlan(("nothere0",))), "NoSuchUplink"),
            (NetworkPlan("two", uplink=UplinkPlan(("lo",))), "InvalidUplink"),
            (NetworkPlan("two", uplink=UplinkPlan(("lo",), vlan=4095)), "InvalidVlan"),
        ],
    )
    async def test_a_network_that_cannot_be_is_refused_and_not_made(
        self, plane: DataPlane, network: NetworkPlan, code: str
    ) -> None:
        await plane.ensure_network(NETWORK)
        with pytest.raises(Refused) as refused:
            await plane.ensure_network(network)
        assert refused.value.code == code
        with pytest.raises(NotFound):
            await plane.attach(replace(TWO, network="two"))

    async def test_nothing_waits_to_be_confirmed_where_nothing_was_taken_over(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        assert await plane.takeover(NETWORK) is None
        with pytest.raises(Refused) as refused:
            await plane.confirm("inner")
        assert refused.value.code == "NothingToConfirm"
        with pytest.raises(NotFound):
            await plane.confirm("nowhere")
