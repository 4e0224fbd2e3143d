"""NICs from several sources: in order, closed and taken back when a start fails."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from carmel.controllers.virtualmachine.nics import NicSources, close_descriptors
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import NicConfig
from carmel.paths import Paths
from carmel.resources.base import ObjectMeta
from carmel.resources.network import Network, NetworkProvider, NetworkSpec
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import (
    NetworkInterface,
    NetworkInterfaceStatus,
    VirtualMachine,
    VirtualMachineSpec,
)


class FakeSource:
    """Serves one provider, with a descriptor a NIC."""

    def __init__(self, provider: NetworkProvider, *, refuses: bool = False) -> None:
        self.provider = provider
        self.refuses = refuses
        self.opened: list[int] = []
        self.asked: list[list[int]] = []
        self.released: list[tuple[str, Collection[str]]] = []

    def serves(self, wanted: WantedNic) -> bool:
        return wanted.network.spec.provider is self.provider

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        self.asked.append([one.index for one in wanted])
        if self.refuses:
            raise Refused("not today", code="NotToday")
        return [self._plan(one) for one in wanted]

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        self.released.append((uid, keep))

    def _plan(self, wanted: WantedNic) -> NicPlan:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self.opened.append(descriptor)
        name = wanted.nic.name
        status = NetworkInterfaceStatus(name=name, network_name=wanted.network.metadata.name, mac="m", addresses=[])
        return NicPlan(NicConfig(name, "m", {"type": self.provider.value}, descriptors=(descriptor,)), status)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def wanted(*providers: NetworkProvider) -> list[WantedNic]:
    return [
        WantedNic(
            index,
            NetworkInterface(name=f"nic{index}"),
            Network(metadata=ObjectMeta(name=provider.value), spec=NetworkSpec(provider=provider)),
        )
        for index, provider in enumerate(providers)
    ]


@pytest.fixture
def vm(tmp_path: Path) -> VmOfNics:
    spec = VirtualMachineSpec()
    paths = Paths(tmp_path, tmp_path, tmp_path).machine("uid")
    return VmOfNics(VirtualMachine(metadata=ObjectMeta(name="w", uid="uid"), spec=spec), spec, (), paths)


async def test_each_nic_comes_from_the_source_of_its_network(vm: VmOfNics) -> None:
    user, tap, idle = (FakeSource(one) for one in (NetworkProvider.USER, NetworkProvider.NAT, NetworkProvider.CABLE))
    sources = NicSources([user, tap, idle])
    plans = await sources.plan(vm, wanted(NetworkProvider.NAT, NetworkProvider.USER, NetworkProvider.NAT))
    assert [plan.config.name for plan in plans] == ["nic0", "nic1", "nic2"]
    assert [plan.config.netdev["type"] for plan in plans] == ["nat", "user", "nat"]
    assert (tap.asked, user.asked, idle.asked) == ([[0, 2]], [[1]], [])
    close_descriptors(plans)
    assert not any(is_open(one) for one in [*user.opened, *tap.opened])


async def test_one_refusal_closes_what_others_opened(vm: VmOfNics) -> None:
    user, tap = FakeSource(NetworkProvider.USER), FakeSource(NetworkProvider.NAT, refuses=True)
    with pytest.raises(CarmelError) as caught:
        await NicSources([user, tap]).plan(vm, wanted(NetworkProvider.USER, NetworkProvider.NAT))
    assert caught.value.code == "NotToday"
    assert len(user.opened) == 1
    assert not is_open(user.opened[0])


async def test_what_no_source_serves_is_named_and_nobody_is_asked(vm: VmOfNics) -> None:
    user = FakeSource(NetworkProvider.USER)
    with pytest.raises(CarmelError) as caught:
        await NicSources([user]).plan(vm, wanted(NetworkProvider.USER, NetworkProvider.BRIDGE))
    assert (caught.value.code, caught.value.field) == ("NotSupported", "spec.networks[1]")
    assert user.asked == []


async def test_release_reaches_every_source() -> None:
    sources = [FakeSource(NetworkProvider.USER), FakeSource(NetworkProvider.NAT)]
    await NicSources(sources).release("uid", ["a"])
    assert [source.released for source in sources] == [[("uid", ["a"])], [("uid", ["a"])]]


def test_a_nic_decides_who_switches_it() -> None:
    (of_host, offloaded, kept_here) = wanted(*[NetworkProvider.BRIDGE] * 3)
    offloaded.network.spec.data_plane = kept_here.network.spec.data_plane = DataPlane.SMART_NIC
    kept_here.nic.data_plane = DataPlane.HOST
    planes = [one.data_plane for one in (of_host, offloaded, kept_here)]
    assert planes == [DataPlane.HOST, DataPlane.SMART_NIC, DataPlane.HOST]
