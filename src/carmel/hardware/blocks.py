"""What block devices are used for, by what the kernel says now and what udev has seen on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from carmel.hardware.sysroot import Sysroot, parse_number, printable

BLOCK = "sys/class/block"
_LIMIT = 4 << 20
"""A machine with thousands of container mounts has a megabyte of them."""
_ESCAPE = re.compile(r"\\([0-7]{3})")
_DEEPEST = 8
_MOST_USES = 4


@dataclass(frozen=True, slots=True)
class Uses:
    """Mount points and swap by device number (``259:0``) or name (``nvme0n1p1``)."""

    mounts: dict[str, list[str]] = field(default_factory=dict)
    swaps: frozenset[str] = frozenset()

    @classmethod
    def read(cls, root: Sysroot) -> Uses:
        uses = cls(swaps=frozenset(_swaps(root)))
        for device, source, place in _mounts(root):
            for name in {device, source.rpartition("/")[2] if source.startswith("/dev/") else ""} - {""}:
                places = uses.mounts.setdefault(name, [])
                if place not in places:
                    places.append(place)
        return uses


def _mounts(root: Sysroot) -> Iterator[tuple[str, str, str]]:
    """Device number, source and place: of every process' view the first one's, since a service may have a smaller one
    (proc(5): /proc/pid/mountinfo). /proc/mounts, which lacks the number, where there is nothing else."""
    for path in ("proc/1/mountinfo", "proc/self/mountinfo"):
        text = root.text(path, _LIMIT)
        if text:
            for line in text.splitlines():
                before, _, after = line.partition(" - ")
                head, tail = before.split(" "), after.split(" ")
                if len(head) > 4 and len(tail) > 1:
                    yield head[2], _plain(tail[1]), _plain(head[4])
            return
    for line in (root.text("proc/mounts", _LIMIT) or "").splitlines():
        parts = line.split(" ")
        if len(parts) > 1:
            yield "", _plain(parts[0]), _plain(parts[1])


def _plain(word: str) -> str:
    """Blanks and the like are written as ``\\040``."""
    return printable(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), word))


def _swaps(root: Sysroot) -> Iterator[str]:
    for line in (root.text("proc/swaps", _LIMIT) or "").splitlines()[1:]:
        source = line.split()[:1]
        if source and source[0].startswith("/dev/"):
            yield _plain(source[0]).rpartition("/")[2]


def used_by(root: Sysroot, name: str, uses: Uses) -> str | None:
    """What has the block device: ``mounted at /``, ``swap``, ``LVM``...; ``None``: nothing that can be seen."""
    found = list(dict.fromkeys(_use(root, name, uses, 0)))
    if not found:
        return None
    more = len(found) - _MOST_USES
    return ", ".join(found[:_MOST_USES]) + (f" and {more} more" if more > 0 else "")


def claims(root: Sysroot, name: str, uses: Uses) -> tuple[str, ...]:
    """Who has the block device, or a part of it, open now; not what merely lies on it (``partitioned``, ``holds``)."""
    return tuple(dict.fromkeys(_use(root, name, uses, 0, content=False)))


def _use(root: Sysroot, name: str, uses: Uses, depth: int, *, content: bool = True) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    folder = f"{BLOCK}/{name}"
    number = root.text(f"{folder}/dev") or name
    places = dict.fromkeys([*uses.mounts.get(number, ()), *uses.mounts.get(name, ())])
    if places:
        yield f"mounted at {min(places, key=lambda place: (len(place), place))}"
    if name in uses.swaps:
        yield "swap"
    above = False
    for holder in root.names(f"{folder}/holders"):
        above = True
        yield _holder(root, holder)
        yield from _use(root, holder, uses, depth + 1, content=content)
    parts = [one for one in root.names(folder) if one.startswith(name) and root.exists(f"{folder}/{one}/partition")]
    seen = [use for part in parts for use in _use(root, part, uses, depth + 1, content=content)]
    yield from seen
    if not content:
        return
    if parts and not seen:
        yield "partitioned"
    if not (places or above or parts or name in uses.swaps) and (found := _content(root, number)):
        yield found


def _holder(root: Sysroot, name: str) -> str:
    """By the prefix that each user of device mapper gives its devices' uuids."""
    uuid = root.word(f"{BLOCK}/{name}/dm/uuid") or ""
    sort = {"LVM": "LVM", "CRYPT": "encrypted", "mpath": "multipath"}.get(uuid.partition("-")[0])
    if sort:
        return sort
    if root.exists(f"{BLOCK}/{name}/md"):
        return f"RAID {name}"
    return f"device mapper {root.word(f'{BLOCK}/{name}/dm/name') or name}" if name.startswith("dm-") else name


def _content(root: Sysroot, number: str) -> str | None:
    """What udev found on it: a file system that nobody has mounted is no free space."""
    for line in (root.text(f"run/udev/data/b{number}", 65536) or "").splitlines():
        key, _, value = line.partition("=")
        if key == "E:ID_FS_TYPE" and value:
            return f"holds {printable(value)}, not in use"
    return None


def size_bytes(root: Sysroot, name: str) -> int:
    """``size`` counts 512 bytes, whatever the drive's block (Documentation/ABI/stable/sysfs-block)."""
    number = parse_number(root.text(f"{BLOCK}/{name}/size") or "")
    return number * 512 if number is not None and 0 <= number < 1 << 54 else 0


def block_bytes(root: Sysroot, name: str) -> int:
    number = parse_number(root.text(f"{BLOCK}/{name}/queue/logical_block_size") or "")
    return number if number is not None and 512 <= number <= 1 << 20 else 512
