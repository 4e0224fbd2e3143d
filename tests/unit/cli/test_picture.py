"""Pictures against their goldens. ``CARMEL_GOLDEN=write`` writes them anew: then look at them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.cli.picture import NARROWEST, draw
from carmel.cli.picture_ink import ASCII, UTF8, Charset, Line, Span, coloured, plain
from carmel.cli.picture_scene import Mark, Tenant, Use, arrange
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from carmel.units import GIB
from tests.unit.cli.machines import machine
from tests.unit.cli.scenes import SCENES, own, shared, two_sockets

GOLDENS = Path(__file__).parents[2] / "data" / "pictures"
CHARSETS = {"utf8": UTF8, "ascii": ASCII}
CASES = [
    *[(name, 80, "utf8") for name in SCENES],
    ("two-sockets", 120, "utf8"),
    ("two-sockets", 200, "utf8"),
    ("two-sockets", 80, "ascii"),
    ("two-sockets", 40, "utf8"),
    ("eight-nodes", 200, "utf8"),
    ("large", 200, "utf8"),
    ("raspberry-pi", 80, "ascii"),
]


def check(name: str, lines: list[str], width: int) -> None:
    assert max(map(len, lines)) <= width
    golden = GOLDENS / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("CARMEL_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("name", "width", "charset"), CASES)
def test_a_picture_is_the_golden_one(name: str, width: int, charset: str) -> None:
    lines = plain(draw(SCENES[name](), width, CHARSETS[charset]))
    check(f"{name}-{width}-{charset}", lines, width)
    if charset == "ascii":
        assert "".join(lines).isascii()


def test_the_recorded_kunpeng_server(recorded_root: Path) -> None:
    tenants = [own("db", range(8, 16), {0: 32 * GIB}), shared("web", 4, range(96, 128), {3: 8 * GIB})]
    scene = arrange(hardware_status(read_hardware(recorded_root)), tenants, Use(reserved=frozenset({0, 64})))
    check("kunpeng-80-utf8", plain(draw(scene, 80, UTF8)), 80)


def test_no_golden_is_left_over() -> None:
    names = {f"{name}-{width}-{charset}.txt" for name, width, charset in CASES} | {"kunpeng-80-utf8.txt"}
    assert {file.name for file in GOLDENS.iterdir()} == names


def test_colour_changes_nothing_but_colour() -> None:
    lines = draw(two_sockets(), 100, UTF8)
    for bare, painted in zip(plain(lines), coloured(lines), strict=True):
        assert without_escapes(painted).rstrip() == bare
    assert "\x1b[" in "".join(coloured(lines))


def without_escapes(text: str) -> str:
    parts = text.split("\x1b[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 70), st.none() | st.integers(1, 40), st.integers(0, 260)
)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, charset=st.sampled_from([UTF8, ASCII]))
def test_every_cpu_is_drawn_once_and_no_line_is_too_long(
    shape: tuple[int, int, int, int | None, int], charset: Charset
) -> None:
    sockets, nodes, cores, cluster, width = shape
    hardware = machine(sockets=sockets, nodes=nodes, cores=cores, cluster=cluster)
    total = sockets * nodes * cores
    scene = arrange(hardware, [own("vm", [total - 1], {0: GIB})], Use())
    cells = [cell for box in scene.boxes for part in box.parts for kind in part.cores for cell in kind.cells]
    assert sorted(cell.cpu for cell in cells) == list(range(total))
    lines = draw(scene, width, charset)
    assert max(map(len, lines)) <= max(width, NARROWEST)
    drawn = Counter(span.text for line in lines for span in line.spans)
    assert drawn[charset.free] == total - 1


@settings(deadline=None, max_examples=60)
@given(
    lists=st.lists(st.sets(st.integers(0, 40), max_size=6), max_size=4),
    memory=st.dictionaries(st.integers(-1, 4), st.integers(0, 2**50), max_size=3),
    dedicated=st.booleans(),
    names=st.text(max_size=80),
)
def test_what_a_host_tells_of_vms_may_be_anything(
    lists: list[set[int]], memory: dict[int, int], dedicated: bool, names: str
) -> None:
    tenant = Tenant(names, dedicated, tuple(tuple(sorted(one)) for one in lists), memory)
    scene = arrange(machine(sockets=2, cores=8), [tenant], Use(reserved=frozenset({3, 99}), unplaced=(names,)))
    lines = draw(scene, 80, UTF8)
    assert all("\n" not in line.text and "\x1b" not in line.text for line in lines)


def test_marks_say_who_has_a_cpu() -> None:
    tenants = [own("a", [1], {0: GIB}), shared("b", 2, [2, 3], {0: GIB})]
    scene = arrange(machine(cores=6), tenants, Use(reserved=frozenset({0}), free=frozenset({2, 3, 4})))
    (cores,) = scene.boxes[0].parts[0].cores
    assert [cell.mark for cell in cores.cells] == [
        Mark.RESERVED,
        Mark.DEDICATED,
        Mark.SHARED,
        Mark.SHARED,
        Mark.FREE,
        Mark.UNKNOWN,
    ]
    assert [cell.letter for cell in cores.cells][1] == "A"


def test_a_line_is_cut_or_filled_to_its_width() -> None:
    line = Line.of("abc", Span("defgh"))
    assert line.fitted(10, "~").text == "abcdefgh  "
    assert line.fitted(5, "~").text == "abcd~"
    assert line.fitted(3, "~").text == "ab~"
