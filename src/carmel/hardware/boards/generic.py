"""Machines of no particular board: for what-if, and what holds for all of their kind. None is recognised as these."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import BoardFacts, Source, fact
from carmel.units import KIB

_OURS: Final = Source("Carmel", "Generic machines", "docs/boards.md")
_X86_PAGES: Final = Source(
    "Asahi Linux documentation, Broken Software",
    "x86 supports only 4K pages",
    "https://github.com/AsahiLinux/docs/blob/main/docs/sw/broken-software.md",
)

BOARDS: Final = (
    BoardFacts(id="generic-systemready", name="Arm SystemReady machine", vendor="any", about=_OURS),
    BoardFacts(
        id="generic-x86-64",
        name="x86-64 machine",
        vendor="any",
        about=_OURS,
        architecture="x86_64",
        page_sizes=fact((4 * KIB,), _X86_PAGES),
        quirk_facts=(
            fact(
                "Arm VMs are emulated here, without KVM: for learning and development, not for work.",
                _OURS,
            ),
        ),
    ),
)
