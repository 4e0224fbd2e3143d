"""Boards that Carmel knows: facts with their sources, how to recognise one, and a machine of that kind for what-if."""

from carmel.hardware.boards.facts import UNKNOWN, BoardFacts, Fact, Source
from carmel.hardware.boards.identify import identify
from carmel.hardware.boards.registry import catalogue, find_board
from carmel.hardware.boards.synthetic import synthetic

__all__ = ["UNKNOWN", "BoardFacts", "Fact", "Source", "catalogue", "find_board", "identify", "synthetic"]
