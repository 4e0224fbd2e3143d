"""The catalogue: every board by its id."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from carmel.errors import NotFound
from carmel.hardware.boards import (
    ampere,
    apple,
    aws,
    bluefield,
    generic,
    huawei,
    jetson,
    lenovo,
    raspberry_pi,
    solidrun,
)
from carmel.hardware.boards.facts import BoardFacts

_MODULES = (raspberry_pi, ampere, jetson, huawei, lenovo, solidrun, aws, bluefield, apple, generic)
_NEAR = 5


@cache
def catalogue() -> Mapping[str, BoardFacts]:
    """All boards by id, in the order in which they are shown."""
    return MappingProxyType({board.id: board for module in _MODULES for board in module.BOARDS})


def find_board(board_id: str) -> BoardFacts:
    """The board of that id. Raises ``NotFound``, which names the ids that are near."""
    boards = catalogue()
    if board_id in boards:
        return boards[board_id]
    wanted = board_id.lower()
    near = [one for one in boards if wanted and (wanted in one or one in wanted)]
    near += [one for one in difflib.get_close_matches(wanted, boards, n=_NEAR, cutoff=0.5) if one not in near]
    names = ", ".join((near or list(boards))[:_NEAR])
    raise NotFound(
        f"There is no board {board_id[:80]!r} in the catalogue.",
        code="BoardNotFound",
        hint=f"{'Near are' if near else 'There are for example'}: {names}. `carmel board list` shows all.",
    )
