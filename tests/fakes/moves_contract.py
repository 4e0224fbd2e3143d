"""What controllers expect of a VM that is held at its place; run on the fake hypervisor and on the real one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from carmel.errors import Refused
from carmel.hypervisor.config import MachineConfig, Pinning
from carmel.hypervisor.machine import Hypervisor, Machine


async def check_moves(
    hypervisor: Hypervisor, make: Callable[[Pinning], MachineConfig], nowhere: MachineConfig, cpus: Sequence[int]
) -> None:
    """``make`` gives a VM of two vCPUs on node 0, ``nowhere`` is another that has no place; ``cpus`` are the host's."""
    here = Pinning((tuple(cpus), tuple(cpus)), (cpus[0],), (0,))
    there = Pinning(((cpus[0],), (cpus[0],)), (cpus[0],), (0,))
    machine = await hypervisor.launch(make(here), paused=True)
    assert machine.pinning == here
    for place in (there, there, here):
        await machine.repin(place)
        assert machine.pinning == place
    for bad in (
        dataclasses.replace(here, vcpus=here.vcpus[:1]),
        dataclasses.replace(here, vcpus=((), ())),
        dataclasses.replace(here, memory_nodes=()),
        dataclasses.replace(here, memory_nodes=(0, 1)),
    ):
        assert await _refusal(machine, bad) == "CannotPin"
        assert machine.pinning == here
    await machine.kill("done")
    assert await _refusal(machine, there) == "MachineNotRunning"
    free = await hypervisor.launch(nowhere, paused=True)
    assert free.pinning is None
    assert await _refusal(free, dataclasses.replace(there, vcpus=there.vcpus[:1])) == "CannotPin"
    assert free.pinning is None
    # Its first place.
    await free.repin(there)
    assert free.pinning == there
    await free.kill("done")
    odd = make(dataclasses.replace(here, vcpus=here.vcpus[:1]))
    with pytest.raises(Refused) as caught:
        await hypervisor.launch(odd)
    assert caught.value.code == "CannotPin"
    assert hypervisor.machine(odd.uid) is None


async def _refusal(machine: Machine, pinning: Pinning) -> str:
    with pytest.raises(Refused) as caught:
        await machine.repin(pinning)
    assert caught.value.message
    return caught.value.code
