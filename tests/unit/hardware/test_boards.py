"""The catalogue: every entry is whole, and nothing in it is said without a source."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from carmel.errors import NotFound
from carmel.hardware.boards import UNKNOWN, BoardFacts, Fact, Source, catalogue, find_board
from carmel.hardware.boards.ampere import slit
from carmel.hardware.midr import Midr

BOARDS = list(catalogue().values())
ASKED_FOR = {
    *("raspberry-pi-4b", "raspberry-pi-400", "raspberry-pi-5"),
    *("mt-jade-altra", "mt-jade-altra-max", "mt-jade-altra-quadrant", "altra-one-socket"),
    *("jetson-agx-xavier", "jetson-xavier-nx", "jetson-agx-orin"),
    *("emag", "honeycomb-lx2k", "kunpeng-920-2p", "graviton-metal", "graviton2-metal"),
    *("bluefield-2", "bluefield-3", "apple-m1", "generic-systemready", "generic-x86-64"),
}
EMAG_VARIANT = 3
"""The one core whose name takes more than implementer and part: an X-Gene has the same two."""

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.id)


def sources_of(board: BoardFacts) -> Iterator[Source]:
    yield board.about
    yield from (recognition.source for recognition in board.recognised_by)
    yield from (source for _, one in board.facts() for source in one.sources)


def test_the_boards_are_there() -> None:
    assert set(catalogue()) >= ASKED_FOR


@each_board
def test_ids_are_words_for_a_command_line(board: BoardFacts) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", board.id)
    assert catalogue()[board.id] is board


@each_board
def test_each_known_fact_has_a_source_and_unknown_ones_none(board: BoardFacts) -> None:
    named = list(board.facts())
    assert {"sockets", "cores[0].midr"} <= {name for name, _ in named} or not board.cores
    for name, one in named:
        assert (one.value is None) == (not one.sources), name


@each_board
def test_sources_say_where_to_look(board: BoardFacts) -> None:
    for source in sources_of(board):
        assert source.title
        assert source.where
        assert source.url.startswith("https://") or source.url in {"docs/boards.md", "docs/smartnic.md"}, source


@each_board
def test_limits_and_quirks_are_sentences(board: BoardFacts) -> None:
    for sentence in (*board.limits, *board.quirks):
        assert sentence[0].isupper(), sentence
        assert sentence.endswith("."), sentence
        assert "  " not in sentence, sentence


@each_board
def test_cores_have_the_names_that_the_reader_gives_them(board: BoardFacts) -> None:
    for kind in board.cores:
        if (midr := kind.midr.value) is not None:
            names = {Midr(midr.implementer, midr.part, variant, 0).name for variant in (0, EMAG_VARIANT)}
            assert kind.name in names


@each_board
def test_counts_fit_each_other(board: BoardFacts) -> None:
    if (nodes := board.nodes) is not None and board.distances.value is not None:
        assert len(board.distances.value) == nodes
        assert all(len(row) == nodes for row in board.distances.value)
    for kind in board.cores:
        if kind.cores.value is not None and kind.cluster.value is not None:
            assert kind.cores.value % kind.cluster.value == 0
        for cache in (one.value for one in kind.caches if one.value is not None):
            assert kind.cores.value is None or kind.cores.value % cache.shared_by == 0
    options, largest = board.memory_options.value, board.memory_maximum.value
    if options is not None and largest is not None:
        assert max(options) <= largest


@each_board
def test_distances_are_what_acpi_allows(board: BoardFacts) -> None:
    for one, row in enumerate(board.distances.value or ()):
        assert row[one] == 10
        assert all(10 < distance < 255 for other, distance in enumerate(row) if other != one)


def test_a_fact_without_a_source_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="a source, or neither"):
        Fact(8, ())
    with pytest.raises(ValueError, match="a source, or neither"):
        Fact(None, (BOARDS[0].about,))
    assert UNKNOWN.value is None


def test_what_everybody_asks_first() -> None:
    pi, xavier, nx = (find_board(one) for one in ("raspberry-pi-4b", "jetson-agx-xavier", "jetson-xavier-nx"))
    jade, large = find_board("mt-jade-altra"), find_board("mt-jade-altra-max")
    assert (pi.cores_per_socket, pi.gic_version.value, pi.max_vcpus) == (4, 2, 8)
    assert (xavier.cores_per_socket, xavier.cores[0].cluster.value, xavier.max_vcpus) == (8, 2, 8)
    assert (nx.cores_per_socket, nx.cores[0].cluster.value) == (6, 2)
    assert (jade.sockets.value, jade.cores_per_socket, jade.nodes, jade.max_vcpus) == (2, 80, 2, 512)
    assert (large.cores_per_socket, find_board("mt-jade-altra-quadrant").nodes) == (128, 8)
    assert any("8 vCPUs" in sentence for sentence in pi.limits)
    assert any("3 GB" in sentence for sentence in pi.quirks)


def test_unknown_is_told_as_unknown() -> None:
    anything = find_board("generic-systemready")
    assert (anything.cores_per_socket, anything.nodes, anything.max_vcpus) == (None, None, None)
    assert all(one.value is None for _, one in anything.facts())


def test_the_distances_of_mt_jade_are_its_firmwares() -> None:
    """Worked out by hand from ComputeSlitDistance: nodes 0 1 / 2 3 of a socket, links at the row of 0 and 1."""
    assert slit(2, 1) == ((10, 20), (20, 10))
    assert slit(2, 2) == ((10, 11, 20, 20), (11, 10, 20, 20), (20, 20, 10, 11), (20, 20, 11, 10))
    assert slit(2, 4)[0] == (10, 11, 11, 12, 20, 20, 21, 21)
    assert slit(2, 4)[3] == (12, 11, 11, 10, 21, 21, 22, 22)


def test_an_unknown_board_is_answered_with_near_ones() -> None:
    with pytest.raises(NotFound) as caught:
        find_board("mt-jade")
    assert caught.value.code == "BoardNotFound"
    assert "mt-jade-altra, " in (caught.value.hint or "")
    with pytest.raises(NotFound) as caught:
        find_board("raspbery-pi-4")
    assert "raspberry-pi-4b" in (caught.value.hint or "")
    with pytest.raises(NotFound):
        find_board("")
