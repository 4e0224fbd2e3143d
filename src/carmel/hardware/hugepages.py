"""Huge pages of every size that the kernel offers (Linux, Documentation/admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from carmel.hardware.model import HugePages
from carmel.hardware.sysroot import Sysroot

_FOLDER = re.compile(r"hugepages-(\d{1,12})kB", re.ASCII)
_MOST_PAGES = 1 << 48


def read_huge_pages(root: Sysroot, folder: str) -> tuple[HugePages, ...]:
    """The pools below a node's or the machine's ``hugepages`` folder, the smallest pages first."""
    pools = []
    for match in filter(None, map(_FOLDER.fullmatch, root.names(folder))):
        total = _pages(root, f"{folder}/{match[0]}/nr_hugepages")
        free = _pages(root, f"{folder}/{match[0]}/free_hugepages")
        if total is None:
            root.remark(f"/{folder}/{match[0]} does not say how many pages it holds: taken as none.")
        if match[1].strip("0"):
            pools.append(HugePages(int(match[1]) << 10, total or 0, min(free or 0, total or 0)))
    return tuple(sorted(pools, key=lambda pool: pool.size_bytes))


def _pages(root: Sysroot, path: str) -> int | None:
    number = root.number(path)
    return number if number is not None and 0 <= number < _MOST_PAGES else None


def machine_pools(root: Sysroot, nodes: Iterable[tuple[HugePages, ...]]) -> tuple[HugePages, ...]:
    """The machine's own word, or else the sum of its nodes'."""
    said = read_huge_pages(root, "sys/kernel/mm/hugepages")
    if said:
        return said
    sums: dict[int, tuple[int, int]] = {}
    for pool in (pool for pools in nodes for pool in pools):
        total, free = sums.get(pool.size_bytes, (0, 0))
        sums[pool.size_bytes] = total + pool.total, free + pool.free
    return tuple(HugePages(size, *counts) for size, counts in sorted(sums.items()))
