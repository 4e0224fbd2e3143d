"""The picture of a machine, drawn: sockets side by side where the terminal is wide enough, nodes below each other.

Pure: a ``Scene`` in, lines out. Nothing is wider than asked for, down to ``NARROWEST``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from carmel.cli.picture_cells import number_of
from carmel.cli.picture_ink import ASCII, Charset, Ink, Line, Span
from carmel.cli.picture_part import part_lines, part_width
from carmel.cli.picture_scene import Box, Mark, Scene, Tenant
from carmel.cli.text import safe
from carmel.units import human_bytes

NARROWEST = 39
_WIDEST = 78
_GAP = 2
_FRAME = 4
"""Columns of a box that are frame and blanks beside it."""


def draw(scene: Scene, width: int, charset: Charset) -> list[Line]:
    width = max(width, NARROWEST)
    lines = [
        line if len(line) <= width else line.fitted(width, charset.ellipsis) for line in _lines(scene, width, charset)
    ]
    return [_ascii(line) for line in lines] if charset is ASCII else lines


def _lines(scene: Scene, width: int, charset: Charset) -> Iterator[Line]:
    sockets = [box for box in scene.boxes if box.socket is not None]
    for row in _in_rows(sockets, width):
        yield from _boxes(scene, row, (width + _GAP) // len(row) - _GAP, charset)
    for box in scene.boxes:
        if box.socket is None:
            yield from _boxes(scene, [box], width, charset)
    for tenant in scene.floating:
        yield Line.of(Span(tenant.letter, Ink.VM, number_of(tenant.letter)), f" {_floating(tenant)}")
    if scene.unplaced:
        yield from _wrapped(["Running, place not known:", *map(safe, scene.unplaced)], width, " ")
    yield from _distances(scene.distances, width)
    if scene.offline:
        yield Line.of(f"Offline: CPU {safe(scene.offline)}")
    yield from _wrapped(list(_legend(scene, charset)), width, "   ")


def _in_rows(boxes: Sequence[Box], width: int) -> Iterator[Sequence[Box]]:
    """As many beside each other as fit, and the rows alike: four are two and two, not three and one."""
    if not boxes:
        return
    most = max(1, (width + _GAP) // (NARROWEST + _GAP))
    rows = -(-len(boxes) // most)
    in_row = -(-len(boxes) // rows)
    for start in range(0, len(boxes), in_row):
        yield boxes[start : start + in_row]


def _boxes(scene: Scene, boxes: Sequence[Box], most: int, charset: Charset) -> Iterator[Line]:
    """Boxes beside each other, of one width and height."""
    wished = max(_natural_width(scene, box, charset) for box in boxes)
    width = max(NARROWEST, min(wished, most, _WIDEST))
    drawn = [_box(scene, box, width, charset) for box in boxes]
    height = max(len(lines) for lines in drawn)
    blank = _framed(Line(), width, charset)
    filled = [[*lines[:-1], *[blank] * (height - len(lines)), lines[-1]] for lines in drawn]
    for beside in zip(*filled, strict=True):
        line = beside[0]
        for other in beside[1:]:
            line = line + Line.of(" " * _GAP) + other
        yield line


def _box(scene: Scene, box: Box, width: int, charset: Charset) -> list[Line]:
    lines = [_edge(charset.top, _box_title(box), width, charset)]
    for index, part in enumerate(box.parts):
        if index:
            lines.append(_edge(charset.between, "", width, charset))
        inside = part_lines(part, width - _FRAME, charset, named=_says_nodes(scene, box), kinds=_says_kinds(scene))
        lines += [_framed(line, width, charset) for line in inside]
    return [*lines, _edge(charset.bottom, "", width, charset)]


def _natural_width(scene: Scene, box: Box, charset: Charset) -> int:
    parts = [part_width(part, charset, named=_says_nodes(scene, box), kinds=_says_kinds(scene)) for part in box.parts]
    return max([len(_box_title(box)) + 2, *parts]) + _FRAME


def _says_nodes(scene: Scene, box: Box) -> bool:
    return scene.several_nodes and not _is_nowhere(box)


def _is_nowhere(box: Box) -> bool:
    """Nothing but devices that are at no node."""
    return box.socket is None and all(part.node is None for part in box.parts)


def _says_kinds(scene: Scene) -> bool:
    return len(scene.kinds) > 1


def _box_title(box: Box) -> str:
    socket = box.socket
    if socket is None:
        return "At no node" if _is_nowhere(box) else "Beside the sockets"
    cores = "1 core" if socket.cores == 1 else f"{socket.cores} cores"
    cells = sum(len(cores.cells) for part in box.parts for cores in part.cores)
    threads = f", {cells} threads" if cells > socket.cores else ""
    model = f", {safe(socket.cpu_model)}" if socket.cpu_model else ""
    return f"Socket {socket.id}: {cores}{threads}{model}"


def _edge(ends: str, title: str, width: int, charset: Charset) -> Line:
    left, right = ends[0], ends[1]
    if not title:
        return Line.of(left + charset.horizontal * (width - 2) + right)
    told = Line.of(Span(title, Ink.TITLE))
    told = told if len(title) <= width - 4 else told.fitted(width - 4, charset.ellipsis)
    return Line.of(f"{left} ") + told + Line.of(" " + charset.horizontal * (width - 4 - len(told)) + right)


def _framed(line: Line, width: int, charset: Charset) -> Line:
    side = charset.vertical
    return Line.of(f"{side} ") + line.fitted(width - _FRAME, charset.ellipsis) + Line.of(f" {side}")


def _floating(tenant: Tenant) -> str:
    size = human_bytes(tenant.memory_bytes) if tenant.memory_bytes else "memory"
    return f"{safe(tenant.name)}: {len(tenant.vcpus)} shared vCPUs and {size} float over several nodes"


def _distances(table: Mapping[int, Mapping[int, int]], width: int) -> Iterator[Line]:
    nodes = sorted(table)
    far = {table[one].get(other) for one in nodes for other in nodes if one != other}
    if len(nodes) < 2 or far == {None}:
        return
    if len(far) == 1:
        yield from _wrapped(["Distance between nodes:", f"{far.pop()} (10 to itself)"], width, " ")
        return
    cell = max(4, len(str(nodes[-1])) + 2)
    head = "Distances "
    if len(head) + cell * (len(nodes) + 1) > width:
        yield Line.of(f"Distances between the {len(nodes)} nodes differ: `-o yaml` has them")
        return
    yield Line.of(Span(head + " " * cell + "".join(str(node).rjust(cell) for node in nodes), Ink.FAINT))
    for one in nodes:
        name = Span(" " * len(head) + str(one).rjust(cell), Ink.FAINT)
        yield Line.of(name, "".join(str(table[one].get(other, "-")).rjust(cell) for other in nodes))


def _legend(scene: Scene, charset: Charset) -> Iterator[str]:
    cores = [cores for box in scene.boxes for part in box.parts for cores in part.cores]
    marks = {cell.mark for one in cores for cell in one.cells}
    for mark, sign, meaning in (
        (Mark.FREE, charset.free, "free CPU"),
        (Mark.SHARED, charset.shared, "shared by VMs"),
        (Mark.DEDICATED, "A", "a VM's own"),
        (Mark.RESERVED, charset.reserved, "the host's own"),
        (Mark.UNKNOWN, charset.unknown, "of a VM not shown"),
    ):
        if mark in marks:
            yield f"{sign} {meaning}"
    if any(len(one.groups) > 1 for one in cores):
        yield "gaps between clusters"


def _wrapped(words: Sequence[str], width: int, gap: str) -> Iterator[Line]:
    line = ""
    for word in words:
        if line and len(line) + len(gap) + len(word) > width:
            yield Line.of(line)
            line = word
        else:
            line = f"{line}{gap}{word}" if line else word
    if line:
        yield Line.of(line)


def _ascii(line: Line) -> Line:
    return Line(tuple(Span(_plain(span.text), span.ink, span.number) for span in line.spans))


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()
