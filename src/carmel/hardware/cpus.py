"""Which CPUs there are, and of what kind (Linux, Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from carmel.cpulist import LARGEST, format_cpu_list
from carmel.errors import Refused
from carmel.hardware.cpuinfo import CpuInfo, midr_of, model_of
from carmel.hardware.midr import Midr
from carmel.hardware.model import CpuKind
from carmel.hardware.sysroot import Sysroot, parse_number

CPUS = "sys/devices/system/cpu"
_FOLDER = re.compile(r"cpu(\d{1,4})", re.ASCII)
_STRONGEST = 1024
_MOST_FREQUENCY_KHZ = 100_000_000


class NothingToRead(Refused):
    """The folder is no machine's root: neither sysfs nor procfs speaks of CPUs."""


def read_cpus(root: Sysroot, info: CpuInfo) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Online and offline CPUs.

    Raises ``NothingToRead``: no file says what CPUs there are.
    """
    matches = (_FOLDER.fullmatch(name) for name in root.names(CPUS))
    folders = {number for match in matches if match and (number := int(match[1])) <= LARGEST}
    online = set(root.numbers(f"{CPUS}/online") or ())
    if not online:
        online = {cpu for cpu in folders if root.text(f"{CPUS}/cpu{cpu}/online") != "0"} or set(info)
        if not online:
            raise NothingToRead(
                "Nothing here says what CPUs the machine has.",
                hint="give the folder that holds the machine's sys and proc folders",
            )
        root.remark(f"/{CPUS}/online says nothing: CPUs {format_cpu_list(online)} were taken to be online.")
    gone = online - folders if folders else set()
    if gone == online:
        gone = set()
    if gone:
        root.remark(f"CPUs {format_cpu_list(gone)} are said to be online but were not found: taken as offline.")
    present = set(root.numbers(f"{CPUS}/present") or ()) | folders
    return tuple(sorted(online - gone)), tuple(sorted((present | gone) - (online - gone)))


@dataclass(frozen=True, slots=True)
class _Seen:
    name: str
    midr: Midr | None
    capacity: int | None
    frequency: int | None


def read_kinds(root: Sysroot, cpus: tuple[int, ...], info: CpuInfo) -> tuple[CpuKind, ...]:
    """The strongest kind first."""
    efficient = set(root.numbers("sys/devices/cpu_atom/cpus") or ())
    seen = {cpu: _look(root, cpu, info, small=cpu in efficient) for cpu in cpus}
    kinds = [_kind(tuple(members), seen) for members in _alike(seen)]
    for kind in kinds:
        if kind.implementer is None and kind.name == _UNNAMED:
            root.remark(f"Nothing says what kind CPUs {format_cpu_list(kind.cpus)} are.")
    return tuple(sorted(kinds, key=lambda kind: (-(kind.capacity or 0), kind.cpus)))


_UNNAMED = "unknown"


def _look(root: Sysroot, cpu: int, info: CpuInfo, *, small: bool) -> _Seen:
    folder = f"{CPUS}/cpu{cpu}"
    block = info.get(cpu, {})
    register = parse_number(root.text(f"{folder}/regs/identification/midr_el1") or "")
    midr = Midr.decode(register) if register else midr_of(block)
    name = midr.name if midr else model_of(block) or _UNNAMED
    return _Seen(
        name=f"{name} (efficient cores)" if small else name,
        midr=midr,
        capacity=_within(root.number(f"{folder}/cpu_capacity"), _STRONGEST),
        frequency=_within(root.number(f"{folder}/cpufreq/cpuinfo_max_freq"), _MOST_FREQUENCY_KHZ),
    )


def _within(number: int | None, most: int) -> int | None:
    return number if number is not None and 0 < number <= most else None


def _alike(seen: Mapping[int, _Seen]) -> list[list[int]]:
    """CPUs of one name and MIDR are one kind, unless some have less than three quarters of the strength of others:
    firmware gives cores of one kind slightly different capacities (a favoured core's boost), and those stay together.
    """
    same: dict[tuple[str, Midr | None], list[int]] = {}
    for cpu, one in seen.items():
        same.setdefault((one.name, one.midr), []).append(cpu)
    kinds = []
    for members in same.values():
        strongest = max(seen[cpu].capacity or 0 for cpu in members)
        weak = [cpu for cpu in members if 4 * (seen[cpu].capacity or strongest) < 3 * strongest]
        kinds += [[cpu for cpu in members if cpu not in set(weak)], *([weak] if weak else [])]
    return kinds


def _kind(cpus: tuple[int, ...], seen: Mapping[int, _Seen]) -> CpuKind:
    midr = seen[cpus[0]].midr
    return CpuKind(
        name=seen[cpus[0]].name,
        cpus=cpus,
        implementer=midr.implementer if midr else None,
        part=midr.part if midr else None,
        variant=midr.variant if midr else None,
        revision=midr.revision if midr else None,
        capacity=max(seen[cpu].capacity or 0 for cpu in cpus) or None,
        max_frequency_khz=max(seen[cpu].frequency or 0 for cpu in cpus) or None,
    )
