"""What every data plane does, the fake one and the kernel's. A test class inherits it and has a fixture ``plane``."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
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


FUNCTION = replace(ONE, representor="pf0vf0")
SECOND = replace(TWO, representor="pf0vf1")


class RepresentorContract(ABC):
    """What every data plane does with representors. ``plane``'s machine has ``pf0vf0`` and ``pf0vf1``, which are free,
    and ``pf0vf2``, which has an address."""

    @abstractmethod
    async def names(self) -> set[str]:
        """Of all interfaces there are."""

    @abstractmethod
    async def hot_unplug(self, name: str) -> None: ...

    @abstractmethod
    async def hot_plug(self, name: str) -> None: ...

    async def test_a_representor_is_taken_and_given_back(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        for _ in range(2):
            assert await plane.attach(FUNCTION) == PortHandles(())
            assert set(await plane.counters()) == set(await plane.attached()) == {FUNCTION.interface}
            assert await self.names() & {"pf0vf0", FUNCTION.interface} == {FUNCTION.interface}
        for _ in range(2):
            await plane.detach(FUNCTION.interface)
            assert await self.names() & {"pf0vf0", FUNCTION.interface} == {"pf0vf0"}
        await plane.remove_network("inner")

    async def test_what_cannot_be_taken_is_left_alone(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        await plane.attach(FUNCTION)
        before = await self.names()
        refused = {"pf0vf0": "RepresentorInUse", "pf0vf2": "RepresentorInUse", "pf0vf9": "NoSuchRepresentor"}
        for name, code in {**refused, "lo": "NoSuchRepresentor", FUNCTION.interface: "NoSuchRepresentor"}.items():
            with pytest.raises(Refused) as raised:
                await plane.attach(replace(SECOND, representor=name))
            assert raised.value.code == code
        assert await self.names() == before
        assert set(await plane.attached()) == {FUNCTION.interface}

    async def test_a_port_changes_its_function(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        await plane.attach(FUNCTION)
        await plane.update(replace(FUNCTION, representor="pf0vf1"))
        assert await self.names() & {"pf0vf0", "pf0vf1"} == {"pf0vf0"}
        await plane.attach(replace(SECOND, representor="pf0vf0"))
        assert await self.names() & {"pf0vf0", "pf0vf1"} == set()

    async def test_what_a_daemon_left_is_found_or_given_back(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        await plane.attach(FUNCTION)
        await plane.attach(SECOND)
        await plane.adopt([NETWORK], [FUNCTION])
        assert await self.names() & {"pf0vf0", "pf0vf1"} == {"pf0vf1"}
        assert set(await plane.attached()) == {FUNCTION.interface}
        await plane.adopt([], [])
        assert await self.names() >= {"pf0vf0", "pf0vf1"}

    async def test_a_function_goes_and_comes_back(self, plane: DataPlane) -> None:
        await plane.ensure_network(NETWORK)
        await plane.attach(FUNCTION)
        await self.hot_unplug(FUNCTION.interface)
        assert await plane.counters() == {}
        await plane.update(FUNCTION)
        with pytest.raises(Refused) as raised:
            await plane.attach(FUNCTION)
        assert raised.value.code == "NoSuchRepresentor"
        await self.hot_plug("pf0vf0")
        await plane.attach(FUNCTION)
        assert set(await plane.counters()) == {FUNCTION.interface}
        await self.hot_unplug(FUNCTION.interface)
        await plane.detach(FUNCTION.interface)
        await plane.remove_network("inner")
