"""What our cpusets expect of a cgroup tree; run on the fake and on the kernel's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.abilities import Hierarchy
from carmel.hypervisor.pinning.cgroups import CgroupTree
from carmel.hypervisor.pinning.failures import CannotPin
from tests.fakes.cgroups import NO_PROCESS


def check_cpusets(hierarchy: Hierarchy, house: str, cpus: tuple[int, ...], pid: int, end: Callable[[], None]) -> None:
    """``cpus``: at least two of the machine's, whose node 0 has memory. ``end`` ends the process ``pid``."""
    first, second = (Pinning(((cpu,),), (cpu,), (0,)) for cpu in cpus[:2])
    tree = CgroupTree(hierarchy, house)
    made = tree.make("a", first)
    assert made.effective("cpus") == cpus[:1]
    assert made.effective("mems") == (0,)
    # Again, and with a process that is gone by now.
    tree.make("a", first).place([pid, NO_PROCESS])
    assert made.holds() == (pid,)
    made.set(second)
    assert made.effective("cpus") == cpus[1:2]
    for bad in (Pinning(((4000,),), (4000,), (0,)), Pinning((cpus[:1],), cpus[:1], (63,))):
        with pytest.raises(CannotPin) as caught:
            made.set(bad)
        assert caught.value.message
        made.set(second)
    with pytest.raises(OSError, match="busy"):
        tree.remove("a")
    other = tree.make("b", first)
    assert tree.sweep(["a"]) == []
    assert not other.directory.exists()
    end()
    tree.remove("a")
    tree.remove("a")
    assert not made.directory.parent.exists()
    assert tree.sweep([]) == []
