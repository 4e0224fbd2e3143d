"""Holding a VM that runs, and moving it: its cpuset and its threads together."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from carmel.cpulist import format_cpu_list
from carmel.errors import CarmelError
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.hypervisor.pinning.threads import pin_threads, vcpu_threads

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

_log = logging.getLogger(__name__)


def check_pinning(pinning: Pinning, vcpus: int) -> None:
    """Raises ``CannotPin`` for what no host could do."""
    if len(pinning.vcpus) != vcpus or not all(pinning.vcpus):
        raise CannotPin(f"a VM of {vcpus} vCPUs needs a place for each of them, not {len(pinning.vcpus)}")
    if not pinning.memory_nodes:
        raise CannotPin("a VM needs a memory node")


async def pin(machine: QemuMachine, pinning: Pinning) -> None:
    """Give every thread its CPUs. Can be done again."""
    if not machine.pinner.pins_threads:
        return
    threads = vcpu_threads(await machine.execute("query-cpus-fast"), pinning)
    qemu, helpers = machine.pids
    await asyncio.to_thread(pin_threads, qemu, threads, pinning, helpers)


async def hold(machine: QemuMachine) -> None:
    """Bring an adopted VM to where its record has it: what an earlier daemon began is done to its end.

    A VM that cannot be held runs on.
    """
    pinning = machine.record.pinning
    if pinning is None:
        return
    try:
        await _move(machine, pinning, pinning)
    except CarmelError as exc:
        _log.warning("the VM %s is not held at its CPUs: %s", machine.record.uid, exc.message)


async def repin(machine: QemuMachine, after: Pinning) -> None:
    """Move a running VM, or leave everything as it was. Raises ``CannotPin``, ``Refused`` (``MachineNotRunning``).

    A VM that was started without a place gets its first one; its memory must be on those nodes already.
    The record is first: if the daemon dies, the next one goes on with ``hold``.
    """
    machine.require_process()
    before = machine.record.pinning or await _anywhere(machine, after)
    check_pinning(after, len(before.vcpus))
    machine.pinner.require(after)
    _check_nodes(before, after)
    try:
        await machine.keep_pinning(after)
        await _move(machine, before, after)
    except BaseException as exc:
        await _back(machine, after, before)
        if isinstance(exc, OSError):
            raise CannotPin(f"the VM's launch record cannot be written: {exc.strerror}") from exc
        raise


async def _anywhere(machine: QemuMachine, after: Pinning) -> Pinning:
    """Where a VM is that has no place: on the CPUs that its process may use."""
    vcpus = await machine.execute("query-cpus-fast")
    cpus = tuple(sorted(os.sched_getaffinity(machine.pids[0])))
    return Pinning((cpus,) * len(vcpus), cpus, after.memory_nodes)


def _check_nodes(before: Pinning, after: Pinning) -> None:
    """The kernel turns the nodes that memory is bound to into others by their order (``cgroups``): to as many, or all
    to one. From one to two, it would go on to be taken from the first alone."""
    if len(after.memory_nodes) not in (1, len(before.memory_nodes)):
        was, wanted = (format_cpu_list(each.memory_nodes) for each in (before, after))
        raise CannotPin(
            f"a running VM whose memory is bound to the nodes {was} cannot be spread over {wanted}",
            hint="stop the VM and start it: it is then placed anew",
        )


async def _move(machine: QemuMachine, before: Pinning, after: Pinning) -> None:
    """The cpuset first, so that threads are never without a CPU: the kernel lets those whose CPUs went float over the
    cpuset's new ones until they get theirs."""
    qemu, helpers = machine.pids
    await machine.cpuset.change([*helpers, qemu], before, after)
    await pin(machine, after)


async def _back(machine: QemuMachine, before: Pinning, after: Pinning) -> None:
    try:
        await _move(machine, before, after)
        await machine.keep_pinning(after)
    except (CarmelError, OSError) as exc:
        _log.error("the VM %s could not be brought back to its CPUs: %s", machine.record.uid, exc)
