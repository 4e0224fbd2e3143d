"""Functions change their drivers, by a kernel that behaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.smartnic.vfio import VfioFunctions
from tests.fakes.pcibus import NET_DRIVER, FakePciBus
from tests.fakes.programs import QuietRunner

ADDRESS = "0000:01:00.0"


@pytest.fixture
def bus(tmp_path: Path) -> FakePciBus:
    bus = FakePciBus(tmp_path)
    bus.add(ADDRESS, mac="52:54:00:ca:01:03", name="enp1s0", group=7)
    bus.add("0000:02:00.0", mac="52:54:00:ca:01:04", name="enp2s0", group=8)
    return bus


async def test_there_and_back(bus: FakePciBus) -> None:
    runner = QuietRunner()
    functions = VfioFunctions(runner, bus)
    await functions.bind(ADDRESS)
    assert bus.driver(ADDRESS) == "vfio-pci"
    assert runner.ran == [["modprobe", "-q", "--", "vfio-pci"], ["modprobe", "-q", "--", "vfio_iommu_type1"]]
    await functions.give_back(ADDRESS)
    assert bus.driver(ADDRESS) == NET_DRIVER
    # Nothing is left that would catch it at the next boot of the driver.
    assert (bus.root / f"sys/bus/pci/devices/{ADDRESS}/driver_override").read_text() == "(null)\n"
    assert bus.driver("0000:02:00.0") == NET_DRIVER


async def test_twice_is_once(bus: FakePciBus) -> None:
    functions = VfioFunctions(QuietRunner(), bus)
    await functions.bind(ADDRESS)
    await functions.bind(ADDRESS)
    assert [path for path, _ in bus.written].count(f"sys/bus/pci/devices/{ADDRESS}/driver/unbind") == 1
    await functions.give_back(ADDRESS)
    await functions.give_back(ADDRESS)
    assert bus.driver(ADDRESS) == NET_DRIVER


async def test_what_was_cut_short_is_done_to_its_end(bus: FakePciBus) -> None:
    bus.write(f"sys/bus/pci/devices/{ADDRESS}/driver_override", "vfio-pci")
    bus.write(f"sys/bus/pci/devices/{ADDRESS}/driver/unbind", ADDRESS)
    functions = VfioFunctions(QuietRunner(), bus)
    await functions.bind(ADDRESS)
    assert bus.driver(ADDRESS) == "vfio-pci"
    bus.write(f"sys/bus/pci/devices/{ADDRESS}/driver/unbind", ADDRESS)
    await functions.give_back(ADDRESS)
    assert bus.driver(ADDRESS) == NET_DRIVER


async def test_giving_back_leaves_others_alone(bus: FakePciBus) -> None:
    functions = VfioFunctions(QuietRunner(), bus)
    await functions.give_back("0000:02:00.0")
    await functions.give_back("0000:09:00.0")
    assert bus.written == []


async def test_a_function_that_is_gone_is_refused(bus: FakePciBus) -> None:
    with pytest.raises(Refused) as caught:
        await VfioFunctions(QuietRunner(), bus).bind("0000:09:00.0")
    assert caught.value.code == "FunctionNotBound"


async def test_a_driver_that_does_not_take_it_is_told_of(bus: FakePciBus) -> None:
    bus.deaf.add("vfio-pci")
    functions = VfioFunctions(QuietRunner(), bus)
    with pytest.raises(Refused) as caught:
        await functions.bind(ADDRESS)
    assert "no driver has it" in caught.value.message
    # It is where it was.
    assert bus.driver(ADDRESS) == NET_DRIVER


async def test_a_kernel_without_vfio_says_so(tmp_path: Path) -> None:
    bus = FakePciBus(tmp_path)
    (bus.root / "sys/bus/pci/drivers/vfio-pci").rmdir()
    with pytest.raises(Refused) as caught:
        await VfioFunctions(QuietRunner(), bus).bind(ADDRESS)
    assert caught.value.code == "NoVFIO"


async def test_only_pci_addresses_become_paths(bus: FakePciBus) -> None:
    with pytest.raises(Refused):
        await VfioFunctions(QuietRunner(), bus).give_back("../../../etc")
