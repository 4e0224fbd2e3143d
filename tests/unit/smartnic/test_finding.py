"""A NIC's functions are found on the host, and what must not be given away is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.resources.smartnic import FunctionKind, FunctionState, FunctionStatus
from carmel.smartnic.finding import find_functions
from carmel.smartnic.hostside import read_host_side
from tests.fakes.pcibus import FakePciBus

MAC = "52:54:00:ca:01:03"


@pytest.fixture
def bus(tmp_path: Path) -> FakePciBus:
    bus = FakePciBus(tmp_path)
    bus.add("0000:01:00.0", mac=MAC, name="enp1s0", group=7, node=1)
    return bus


def told(function_id: str = "pf0vf3", mac: str | None = MAC, address: str | None = None) -> FunctionStatus:
    return FunctionStatus(id=function_id, kind=FunctionKind.NET, mac=mac, pci_address=address, representor="pf0vf3")


def find(bus: FakePciBus, *functions: FunctionStatus, before: tuple[FunctionStatus, ...] = ()) -> list[FunctionStatus]:
    return list(find_functions(functions or (told(),), read_host_side(bus.root), before))


def test_it_is_found_by_its_mac_address(bus: FakePciBus) -> None:
    bus.add("0000:02:00.0", mac="52:54:00:ca:01:04", name="enp2s0", group=8)
    (found,) = find(bus)
    assert found == FunctionStatus(
        id="pf0vf3",
        kind=FunctionKind.NET,
        mac=MAC,
        representor="pf0vf3",
        pci_address="0000:01:00.0",
        iommu_group=7,
        numa_node=1,
        driver="virtio-pci",
        state=FunctionState.FREE,
    )


def test_the_address_that_is_told_counts_if_it_is_one_of_that_mac(bus: FakePciBus) -> None:
    bus.add("0000:02:00.0", mac="52:54:00:ca:01:04", name="enp2s0", group=8)
    (found,) = find(bus, told(address="0000:01:00.0"))
    assert (found.pci_address, found.state) == ("0000:01:00.0", FunctionState.FREE)
    (lie,) = find(bus, told(address="0000:02:00.0"))
    assert lie.state is FunctionState.MISSING
    assert lie.pci_address is None
    assert "another MAC address" in (lie.message or "")


def test_what_is_no_nic_is_not_taken_for_one(bus: FakePciBus) -> None:
    bus.add("0000:03:00.0", class_code=0x010802, group=9, driver=None)
    (found,) = find(bus, told(address="0000:03:00.0"))
    assert found.state is FunctionState.MISSING
    assert found.message == "0000:03:00.0, which the NIC says it is, is something else"


def test_one_that_vfio_has_is_where_it_was_seen_last(bus: FakePciBus) -> None:
    before = find(bus)
    bus.write("sys/bus/pci/devices/0000:01:00.0/driver_override", "vfio-pci")
    bus.write("sys/bus/pci/devices/0000:01:00.0/driver/unbind", "0000:01:00.0")
    bus.write("sys/bus/pci/drivers_probe", "0000:01:00.0")
    (found,) = find(bus, before=tuple(before))
    assert (found.pci_address, found.driver, found.state) == ("0000:01:00.0", "vfio-pci", FunctionState.FREE)
    # On its way there it has no driver at all.
    bus.write("sys/bus/pci/devices/0000:01:00.0/driver/unbind", "0000:01:00.0")
    (between,) = find(bus, before=(found,))
    assert (between.pci_address, between.driver, between.state) == ("0000:01:00.0", None, FunctionState.FREE)
    bus.write("sys/bus/pci/drivers_probe", "0000:01:00.0")
    # A real NIC gives it the MAC address of the port that it is plugged into.
    (renamed,) = find(bus, told(mac="52:54:00:00:00:77"), before=tuple(before))
    assert (renamed.pci_address, renamed.mac) == ("0000:01:00.0", "52:54:00:00:00:77")
    # And what somebody else gave to vfio-pci is not Carmel's to give away.
    (foreign,) = find(bus, told(address="0000:01:00.0"))
    assert foreign.message == "vfio-pci has 0000:01:00.0 already, and not for Carmel"


def test_one_whose_driver_has_made_no_interface_yet_is_where_it_was_seen_last(bus: FakePciBus, tmp_path: Path) -> None:
    before = find(bus)
    (interface,) = (tmp_path / "sys/class/net").iterdir()
    hidden = interface.rename(tmp_path / "hidden")
    (found,) = find(bus, before=tuple(before))
    assert (found.pci_address, found.state) == ("0000:01:00.0", FunctionState.FREE)
    # Once there is one, it is what it says.
    hidden.rename(interface)
    (other,) = find(bus, told(mac="52:54:00:00:00:77"), before=tuple(before))
    assert other.state is FunctionState.MISSING


def test_one_that_is_gone_is_missing(bus: FakePciBus) -> None:
    bus.remove("0000:01:00.0")
    (found,) = find(bus)
    assert (found.state, found.message) == (FunctionState.MISSING, f"the host sees no function with MAC address {MAC}")


def test_a_group_with_others_is_refused_and_they_are_named(bus: FakePciBus) -> None:
    bus.add("0000:01:00.1", mac="52:54:00:00:00:09", name="enp1s0f1", group=7)
    (found,) = find(bus)
    assert found.state is FunctionState.REFUSED
    assert found.message == ("IOMMU group 7 has 0000:01:00.1 besides 0000:01:00.0: they can only be passed on together")


def test_bridges_in_the_group_do_no_harm(bus: FakePciBus) -> None:
    bus.add("0000:00:01.0", class_code=0x060400, group=7, driver="pcieport")
    (found,) = find(bus)
    assert found.state is FunctionState.FREE


def test_without_an_iommu_it_says_what_to_switch_on(tmp_path: Path) -> None:
    bus = FakePciBus(tmp_path)
    bus.add("0000:01:00.0", mac=MAC, name="enp1s0")
    (found,) = find(bus)
    assert found.state is FunctionState.REFUSED
    assert "SMMU" in (found.message or "")


def test_what_the_host_needs_itself_is_refused(bus: FakePciBus) -> None:
    bus.use("enp1s0")
    (found,) = find(bus)
    assert found.state is FunctionState.REFUSED
    assert found.message == "the host itself needs it: enp1s0 is an interface with addresses"


def test_two_interfaces_with_one_mac_are_none(bus: FakePciBus) -> None:
    bus.add("0000:02:00.0", mac=MAC, name="enp2s0", group=8)
    (found,) = find(bus)
    assert found.state is FunctionState.MISSING
    assert "enp1s0, enp2s0" in (found.message or "")


def test_two_functions_that_are_one_are_both_refused(bus: FakePciBus) -> None:
    found = find(bus, told("pf0vf3"), told("pf0vf4"))
    assert [one.state for one in found] == [FunctionState.REFUSED, FunctionState.REFUSED]
    assert found[0].message == "the NIC says of pf0vf4 as well that it is 0000:01:00.0"
