"""What uplinks have while networks need it, wherever a change of it is cut off."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from carmel.network.dataplane import NetworkPlan, UplinkPlan
from carmel.network.host.kernel import Link
from carmel.network.ovs.mtus import NotedMtu, needed, to_give, to_give_back


@dataclass
class Uplink:
    """``cut``: how many changes are done before the daemon is killed."""

    mtu: int
    noted: dict[str, NotedMtu] = field(default_factory=dict)

    def settle(self, networks: list[NetworkPlan], cut: int = 2) -> None:
        for note, step in to_give(networks, self.links, self.noted):
            if cut > 0:
                self.noted[note.name] = note.mtu
            if cut > 1:
                self.mtu = step.mtu

    def end(self) -> None:
        for step in to_give_back(["up0"], self.links, self.noted):
            self.mtu = step.mtu
        self.noted.clear()

    @property
    def links(self) -> dict[str, Link]:
        return {"up0": Link("up0", 1, mtu=self.mtu)}


def _networks(*mtus: int) -> list[NetworkPlan]:
    return [NetworkPlan(f"n{mtu}", uplink=UplinkPlan(("up0",), vlan=mtu % 100), mtu=mtu) for mtu in mtus]


def test_the_widest_network_decides() -> None:
    assert needed([*_networks(1500, 9000), NetworkPlan("inner", mtu=1400)]) == {"up0": 9000}


def test_an_uplink_that_is_away_is_no_error() -> None:
    assert not list(to_give(_networks(9000), {}, {}))
    assert not list(to_give_back(["up0"], {}, {}))


@pytest.mark.parametrize("own", [1500, 4000, 9000])
@pytest.mark.parametrize("cuts", list(itertools.product(range(3), repeat=3)))
def test_it_has_what_it_had_wherever_it_was_cut_off(own: int, cuts: tuple[int, ...]) -> None:
    uplink = Uplink(own)
    for mtus, cut in zip(((1500, 9000), (1500, 4000), (8000,)), cuts, strict=True):
        uplink.settle(_networks(*mtus), cut)
        uplink.settle(_networks(*mtus))
        assert uplink.mtu == max(own, *mtus)
    uplink.end()
    uplink.end()
    assert uplink.mtu == own


@pytest.mark.parametrize("cuts", list(itertools.product(range(3), repeat=2)))
def test_changes_that_were_never_finished(cuts: tuple[int, ...]) -> None:
    uplink = Uplink(1500)
    for mtu, cut in zip((9000, 4000), cuts, strict=True):
        uplink.settle(_networks(mtu), cut)
    uplink.end()
    assert uplink.mtu == 1500


def test_what_somebody_else_set_is_left() -> None:
    uplink = Uplink(1500)
    uplink.settle(_networks(9000))
    uplink.mtu = 8000
    uplink.end()
    assert uplink.mtu == 8000
