"""The affinity of a VM's threads (sched_setaffinity(2)). Linux only.

A thread inherits the affinity of the one that makes it, and QEMU's worker threads are made by its main thread: once
every thread has its place, later ones have it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carmel.cpulist import format_cpu_list
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.failures import cannot_pin

_PROC = Path("/proc")
_ROUNDS = 100


def vcpu_threads(answer: Sequence[Mapping[str, Any]], pinning: Pinning) -> dict[int, tuple[int, ...]]:
    """The CPUs of each vCPU thread, from QMP's ``query-cpus-fast``. Emulated vCPUs may share one thread."""
    threads: dict[int, tuple[int, ...]] = {}
    for vcpu in answer:
        index = int(vcpu["cpu-index"])
        if index < len(pinning.vcpus):
            thread = int(vcpu["thread-id"])
            threads[thread] = tuple(sorted({*threads.get(thread, ()), *pinning.vcpus[index]}))
    return threads


def pin_threads(qemu: int, vcpus: Mapping[int, tuple[int, ...]], pinning: Pinning, helpers: Sequence[int] = ()) -> None:
    """Give each vCPU thread of the process ``qemu`` its CPUs, and all other threads, helpers' too, the emulator's.

    Raises ``CannotPin``. A process or thread that ended is passed over.
    """
    others = pinning.emulator or pinning.cpus
    _each_thread(qemu, lambda thread: vcpus.get(thread, others))
    for helper in helpers:
        _each_thread(helper, lambda _thread: others)


def _each_thread(pid: int, cpus_of: Callable[[int], tuple[int, ...]]) -> None:
    """Until no thread is new: one that was made meanwhile has its maker's affinity of before."""
    done: set[int] = set()
    for _ in range(_ROUNDS):
        new = _threads(pid) - done
        if not new:
            return
        for thread in new:
            _set(thread, cpus_of(thread))
        done |= new


def _threads(pid: int) -> set[int]:
    try:
        return {int(entry) for entry in os.listdir(_PROC / str(pid) / "task")}  # noqa: PTH208 - names are enough
    except (FileNotFoundError, ProcessLookupError):
        return set()


def _set(thread: int, cpus: tuple[int, ...]) -> None:
    try:
        os.sched_setaffinity(thread, cpus)
    except ProcessLookupError:
        return
    except OSError as exc:
        raise cannot_pin(f"the CPUs {format_cpu_list(cpus)}", exc) from exc
