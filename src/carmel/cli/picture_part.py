"""One NUMA node of the picture: its CPUs, its memory, the VMs that sit there and the devices at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carmel.cli.picture_cells import cell_rows, natural_width, number_of
from carmel.cli.picture_devices import Device
from carmel.cli.picture_ink import Charset, Ink, Line, Span
from carmel.cli.picture_scene import Cell, Guest, Mark, Part, Pool
from carmel.cli.text import safe
from carmel.units import human_bytes

_MOST_GUESTS = 8
_MOST_DEVICES = 6
_BAR = 20


def part_lines(part: Part, width: int, charset: Charset, *, named: bool, kinds: bool) -> Iterator[Line]:
    """``named``: say which node it is, since there are others; ``kinds``: say which CPUs are of which kind."""
    if title := _title(part, named=named):
        yield Line.of(Span(title[0], Ink.TITLE), title[1])
    for cores in part.cores:
        if kinds and cores.kind:
            yield Line.of(Span(f"{len(cores.cells)} {safe(cores.kind)}", Ink.FAINT))
        yield from cell_rows(cores, width, charset)
    yield from _pools(part.pools, width, charset)
    yield from _guests(part.guests, width, charset)
    yield from _devices(part.devices)


def part_width(part: Part, charset: Charset, *, named: bool, kinds: bool) -> int:
    """How wide it would be where there is room enough."""
    texts = [len(line) for line in part_lines(part, 200, charset, named=named, kinds=kinds)]
    bars = [len(_pool_name(pool)) + _BAR + len(_share(pool)) + 2 for pool in part.pools]
    rows = [natural_width(cores) for cores in part.cores]
    return max([*texts, *bars, *rows], default=0)


def _title(part: Part, *, named: bool) -> tuple[str, str] | None:
    left = _cpus_left([cell for cores in part.cores for cell in cores.cells])
    if named:
        name = "At no node" if part.node is None else f"Node {part.node}"
        return name, f"  {left}" if left else ""
    return ("", left) if left else None


def _cpus_left(cells: Sequence[Cell]) -> str:
    """How many nobody has for himself: ``24 of 32 CPUs left``."""
    if not cells:
        return ""
    whole = "1 CPU" if len(cells) == 1 else f"{len(cells)} CPUs"
    left = sum(1 for cell in cells if cell.mark in {Mark.FREE, Mark.SHARED})
    return whole if left == len(cells) else f"{left} of {whole} left"


def _pools(pools: Sequence[Pool], width: int, charset: Charset) -> Iterator[Line]:
    names = max((len(_pool_name(pool)) for pool in pools), default=0)
    shares = max((len(_share(pool)) for pool in pools), default=0)
    length = min(_BAR, width - names - shares - 2)
    for pool in pools:
        name, share = _pool_name(pool).ljust(names), _share(pool)
        if length < 4 or not pool.total_bytes:
            yield Line.of(f"{name} {share}")
            continue
        full = min(length, -(-pool.used_bytes * length // pool.total_bytes))
        yield Line.of(
            f"{name} ",
            Span(charset.full * full, Ink.FULL),
            Span(charset.empty * (length - full), Ink.FAINT),
            f" {share}",
        )


def _pool_name(pool: Pool) -> str:
    return "memory" if pool.page_bytes is None else f"{human_bytes(pool.page_bytes)} pages"


def _share(pool: Pool) -> str:
    """``12 of 64 GiB``: the unit is said once where it is the same."""
    if not pool.total_bytes:
        return f"none, {human_bytes(pool.used_bytes)} used" if pool.used_bytes else "none"
    whole = human_bytes(pool.total_bytes)
    used = human_bytes(pool.used_bytes) if pool.used_bytes else "0"
    number, _, unit = used.partition(" ")
    return f"{number if whole.endswith(f' {unit}') else used} of {whole}"


def _guests(guests: Sequence[Guest], width: int, charset: Charset) -> Iterator[Line]:
    """The largest first when there are too many to show."""
    shown, rest = list(guests), []
    if len(shown) > _MOST_GUESTS:
        ordered = sorted(shown, key=lambda guest: (-guest.vcpus, -guest.memory_bytes, guest.tenant.name))
        shown, rest = sorted(ordered[: _MOST_GUESTS - 1], key=shown.index), ordered[_MOST_GUESTS - 1 :]
    rows = [(guest.tenant, _vcpus(guest), _memory(guest.memory_bytes)) for guest in shown]
    counts = max((len(count) for _, count, _ in rows), default=0)
    memories = max((len(memory) for _, _, memory in rows), default=0)
    names = max((len(tenant.name) for tenant, _, _ in rows), default=0)
    names = max(4, min(names, width - counts - memories - 6))
    for tenant, count, memory in rows:
        name = Line.of(safe(tenant.name)).fitted(names, charset.ellipsis).text
        letter = Span(tenant.letter, Ink.VM, number_of(tenant.letter))
        yield Line.of(letter, f" {name}  {count.ljust(counts)}  {memory.rjust(memories)}")
    if rest:
        vcpus, size = sum(guest.vcpus for guest in rest), sum(guest.memory_bytes for guest in rest)
        yield Line.of(f"and {len(rest)} more VMs: {vcpus} vCPUs, {_memory(size)}")


def _vcpus(guest: Guest) -> str:
    if not guest.vcpus:
        return "memory only"
    return f"{guest.vcpus} {'dedicated' if guest.tenant.dedicated else 'shared'}"


def _memory(size: int) -> str:
    return human_bytes(size) if size else "0"


def _devices(devices: Sequence[Device]) -> Iterator[Line]:
    shown = devices if len(devices) <= _MOST_DEVICES else devices[: _MOST_DEVICES - 1]
    names = max((len(one.name) for one in shown), default=0)
    for one in shown:
        yield Line.of(f"{one.name.ljust(names)}  ", Span(one.text, Ink.FAINT))
    if len(shown) < len(devices):
        yield Line.of(Span(f"and {len(devices) - len(shown)} more devices", Ink.FAINT))
