"""Cores by MIDR_EL1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.hardware.midr import IMPLEMENTERS, PARTS, Midr


@pytest.mark.parametrize(
    ("register", "name"),
    [
        (0x410FD083, "Cortex-A72"),
        (0x414FD0B1, "Cortex-A76"),
        (0x413FD0C1, "Neoverse-N1"),
        (0x410FD4F0, "Neoverse-V2"),
        (0x410FD421, "Cortex-A78AE"),
        (0x481FD010, "TaiShan v110"),
        (0x4E0F0040, "Carmel"),
        (0x4E0F0030, "Denver 2"),
        (0x611F0221, "Icestorm (M1)"),
        (0x461F0010, "A64FX"),
        (0x431F0AF1, "ThunderX2 CN99XX"),
        (0xC00FAC30, "Ampere-1"),
        (0x503F0002, "eMAG"),
        (0x500F0001, "X-Gene"),
        (0x48FFD030, "HiSilicon, part 0xd03"),
        (0x7F0F1230, "implementer 0x7f, part 0x123"),
    ],
)
def test_names(register: int, name: str) -> None:
    assert Midr.decode(register).name == name


def test_fields() -> None:
    assert Midr.decode(0x413FD0C1) == Midr(implementer=0x41, part=0xD0C, variant=3, revision=1)


@given(st.builds(Midr, *(st.integers(0, most) for most in (0xFF, 0xFFF, 0xF, 0xF))))
def test_what_is_decoded_is_what_was(midr: Midr) -> None:
    assert Midr.decode(midr.register) == midr
    assert midr.name


def test_every_table_has_its_maker() -> None:
    assert set(PARTS) <= set(IMPLEMENTERS)
    for parts in PARTS.values():
        assert all(0 <= part <= 0xFFF for part in parts)
