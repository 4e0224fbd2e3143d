"""What the guest's own kernel says of the silicon that it was given."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.hypervisor.config import CpuConfig, GuestNodeConfig, MachineConfig
from carmel.units import MIB
from tests.system.hypervisor.conftest import HUGE_PAGE, HUGE_POOL, ConfigMaker, House, answer, until_prompt

FOUR = CpuConfig(4, 2, 1, 2, 1)


async def asked(house: House, config: MachineConfig, command: str) -> str:
    """Boot, type ``command``, and what came back; the VM is gone afterwards."""
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    stream = await hypervisor.open_console(config.uid)
    seen = await answer(stream, f"echo be''gun; ({command}) 2>&1; echo that-is-''all\n".encode(), b"that-is-all")
    await stream.close()
    await machine.kill("done")
    said = seen.decode(errors="replace").replace("\r", "")
    _typed, begun, told = said.partition("\nbegun\n")
    assert begun, said[-900:]
    return told.partition("that-is-all")[0]


async def test_the_guests_kernel_sees_its_nodes_and_distances(house: House, make_config: ConfigMaker) -> None:
    numa = (
        GuestNodeConfig((0, 3), 192 * MIB, (10, 20), host_node=0),
        GuestNodeConfig((1, 2), 128 * MIB, (30, 10), host_node=0),
    )
    config = make_config(cpu=FOUR, memory_bytes=320 * MIB, numa=numa)
    nodes = "/sys/devices/system/node"
    said = await asked(house, config, f"cat {nodes}/online {nodes}/node*/cpulist {nodes}/node*/distance")
    assert said.split("\n")[:3] == ["0-1", "0,3", "1-2"]
    assert [line.split() for line in said.split("\n")[3:5]] == [["10", "20"], ["30", "10"]]


async def test_the_guests_kernel_sees_sockets_and_cores(house: House, make_config: ConfigMaker) -> None:
    config = make_config(cpu=FOUR, memory_bytes=256 * MIB)
    topology = "/sys/devices/system/cpu/cpu*/topology"
    said = await asked(house, config, f"cat {topology}/physical_package_id {topology}/core_id")
    assert said.split() == ["0", "0", "1", "1", "0", "1", "0", "1"]


@pytest.mark.parametrize(("version", "word"), [(2, "GICv2|GIC physical location|gic-400|cortex-a15-gic"), (3, "GICv3")])
async def test_the_interrupt_controller_is_the_one_that_was_asked_for(
    house: House, make_config: ConfigMaker, version: int, word: str
) -> None:
    config = make_config(cpu=CpuConfig(1, 1, 1, 1, 1, gic_version=version))
    said = await asked(house, config, "dmesg | grep -i gic; cat /proc/interrupts")
    assert re.search(word, said)
    assert ("GICv3" in said) is (version == 3)


async def test_a_guest_that_may_nest_starts_as_a_hypervisor(house: House, make_config: ConfigMaker) -> None:
    config = make_config(cpu=CpuConfig(1, 1, 1, 1, 1, nested=True))
    said = await asked(house, config, "dmesg | grep -iE 'started at|VHE|kvm'")
    assert "started at EL2" in said
    # Where its kernel lives at EL2 itself, KVM in it is twice as fast.
    assert re.search("Virtualization Host Extensions|VHE mode", said)


async def test_an_ordinary_guest_does_not(house: House, make_config: ConfigMaker) -> None:
    assert "started at EL1" in await asked(house, make_config(), "dmesg | grep 'started at'")


async def test_memory_lies_in_huge_pages(house: House, make_config: ConfigMaker, huge_pages: None) -> None:
    config = make_config(memory_bytes=64 * MIB, page_bytes=HUGE_PAGE, numa=(GuestNodeConfig((0,), 64 * MIB, (10,), 0),))
    machine = await house.hypervisor().launch(config, paused=True)
    maps = (Path("/proc") / str(machine.launch.pid) / "numa_maps").read_text()
    (ram,) = [line for line in maps.splitlines() if " huge " in line]
    assert "bind:0" in ram
    assert "N0=32" in ram
    await machine.kill("done")


@pytest.mark.skipif(not HUGE_POOL.exists(), reason="this kernel has no huge pages of 2 MiB")
async def test_too_few_huge_pages_are_told_with_their_size(house: House, make_config: ConfigMaker) -> None:
    config = make_config(memory_bytes=8192 * 1024 * MIB, page_bytes=HUGE_PAGE)
    with pytest.raises(Refused) as caught:
        await house.hypervisor().launch(config, paused=True)
    assert caught.value.code == "InsufficientHugePages"
    assert "2Mi" in caught.value.message
    assert "hugepages-2048kB/nr_hugepages" in str(caught.value.hint)
    assert not house.paths.machine(config.uid).launch_record.exists()


async def test_a_page_size_that_no_kernel_has_is_told(house: House, make_config: ConfigMaker) -> None:
    with pytest.raises(Refused) as caught:
        await house.hypervisor().launch(make_config(page_bytes=64 * MIB), paused=True)
    assert (caught.value.code, caught.value.field) == ("UnknownPageSize", "spec.memory.pageSize")


async def test_a_node_that_is_not_there_is_named(house: House, make_config: ConfigMaker) -> None:
    config = make_config(numa=(GuestNodeConfig((0,), 192 * MIB, (10,), host_node=62),))
    with pytest.raises(Refused) as caught:
        await house.hypervisor().launch(config, paused=True)
    assert caught.value.code == "MemoryNodeUnavailable"
    assert "62" in caught.value.message


async def test_state_that_was_saved_without_a_place_is_restored_at_one(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    await machine.suspend()
    node = GuestNodeConfig((0,), config.memory_bytes, (10,), host_node=0)
    held = await hypervisor.launch(dataclasses.replace(config, numa=(node,)), restore=True)
    stream = await hypervisor.open_console(config.uid)
    await answer(stream, b"echo still he''re\n", b"still here")
    await stream.close()
    assert "bind:0" in (Path("/proc") / str(held.launch.pid) / "numa_maps").read_text()
    await held.kill("done")
