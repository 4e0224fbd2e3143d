"""What VMs may have at all, as the kernel's cpusets say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carmel.daemon.platform import _allowed
from carmel.hypervisor.pinning.abilities import Hierarchy


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (1, ("cpuset.effective_cpus", "cpuset.effective_mems")),
        (2, ("cpuset.cpus.effective", "cpuset.mems.effective")),
    ],
)
def test_cpusets_say_what_there_is(tmp_path: Path, version: int, names: tuple[str, str]) -> None:
    cpus, nodes = names
    (tmp_path / cpus).write_text("2-5\n")
    (tmp_path / nodes).write_text("1\n")
    assert _allowed(Hierarchy(tmp_path, version)) == (frozenset({2, 3, 4, 5}), frozenset({1}))
    (tmp_path / cpus).write_text("\n")
    (tmp_path / nodes).write_text("what?\n")
    assert _allowed(Hierarchy(tmp_path, version)) == (None, None)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_without_cpusets_it_is_what_this_process_has() -> None:
    assert _allowed(None) == (frozenset(os.sched_getaffinity(0)), None)
