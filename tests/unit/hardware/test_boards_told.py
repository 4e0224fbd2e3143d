"""Facts in words: complete, honest about what is unknown, and the same in the documentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carmel.hardware.boards import BoardFacts, catalogue, find_board
from carmel.hardware.boards.page import MARK, page
from carmel.hardware.boards.told import document, memory, recognised, told

DOCS = Path(__file__).parents[3] / "docs"

each_board = pytest.mark.parametrize("board", list(catalogue().values()), ids=lambda board: board.id)


def texts(board_id: str, name: str) -> list[str | None]:
    return [one.text for one in told(find_board(board_id)) if one.name == name]


@each_board
def test_nothing_is_left_untold(board: BoardFacts) -> None:
    facts = list(board.facts())
    rows = list(told(board))
    assert len(rows) - len(board.recognised_by) == len(facts) - _untold_capacities(board)
    assert {one.name for one in rows if one.text is None} or all(fact.value is not None for _, fact in facts)
    for one in rows:
        assert (one.text is None) == (not one.sources), one.name


def _untold_capacities(board: BoardFacts) -> int:
    """Relative strength is told by the kernel of a real machine; no board has it as a fact yet."""
    assert all(kind.capacity.value is None for kind in board.cores)
    return len(board.cores)


@each_board
def test_the_document_is_json_and_says_null_for_unknown(board: BoardFacts) -> None:
    told_again = json.loads(json.dumps(document(board)))
    assert told_again["id"] == board.id
    for one in told_again["facts"]:
        assert (one["value"] is None) == (one["sources"] == [])


def test_words() -> None:
    assert texts("raspberry-pi-4b", "GIC") == ["v2: at most 8 vCPUs in a VM"]
    assert texts("mt-jade-altra", "Distances") == ["10 20 / 20 10"]
    assert texts("jetson-agx-xavier", "Carmel: MIDR") == ["implementer 0x4e, part 0x004"]
    assert texts("jetson-agx-xavier", "Carmel: cache")[2] == "L2 unified, 2 MiB, 2 cores together"
    assert texts("mt-jade-altra-max", "NVMe")[1] == "16 x front bays SSD8 to SSD23, at socket 1"
    assert texts("mt-jade-altra-max", "Neoverse-N1: fastest") == [None]
    assert [memory(find_board(one)) for one in ("mt-jade-altra", "raspberry-pi-5", "apple-m1")] == [
        "up to 8 TiB",
        "4 GiB, 8 GiB",
        None,
    ]


def test_how_it_is_recognised() -> None:
    (words,) = [recognised(one) for one in find_board("mt-jade-altra-max-quadrant").recognised_by]
    assert words.startswith("vendor wiwynn, product mt.jade*, MIDR implementer 0x41, part 0xd0c, 2 sockets, ")
    assert words.endswith(", 81 to 128 cores in a socket, 8 NUMA nodes")


def test_the_documentation_is_of_this_catalogue() -> None:
    text = (DOCS / "boards.md").read_text("utf-8")
    assert page(text) == text


def test_what_people_wrote_above_the_mark_is_kept() -> None:
    text = page("# Boards\n\nWords.\n")
    assert text.startswith(f"# Boards\n\nWords.\n\n{MARK}\n\n## All boards\n")
    assert page(text) == text
    for board_id in catalogue():
        assert f"### `{board_id}`: " in text
    assert "As `raspberry-pi-4b`, but for:" in text
