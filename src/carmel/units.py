"""Sizes as people write them: Kubernetes quantities in and out (``512Mi``, ``2Gi``, ``10G``), bytes inside.

The grammar is that of Kubernetes' ``resource.Quantity`` for whole bytes: a decimal number with a suffix of the
binary (Ki Mi Gi Ti Pi Ei) or decimal (k M G T P E) series, or a plain number. A fraction is taken as long as the
result is a whole number of bytes (``1.5Gi``).
"""

from __future__ import annotations

import re
from decimal import Decimal

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_QUANTITY = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?)(?P<suffix>[KMGTPE]i|[kMGTPE])?")
_FACTORS = {
    "": 1,
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)},
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", start=1)},
}
_LARGEST = 2**63 - 1


def parse_bytes(text: str | int) -> int:
    """Bytes that a quantity stands for. Raises ``ValueError`` with a sentence that fits behind the field's name."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{str(text)[:40]!r} is not a size: write for example 512Mi or 2Gi")
    value = Decimal(match["number"]) * _FACTORS[match["suffix"] or ""]
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if value > _LARGEST:
        raise ValueError(f"{text!r} is larger than any size there is")
    return int(value)


def format_bytes(value: int) -> str:
    """The shortest exact binary quantity: ``1073741824`` is ``1Gi``, ``1500`` is ``1500``."""
    for power, letter in reversed(list(enumerate("KMGTPE", start=1))):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{letter}i"
    return str(value)


def human_bytes(value: float) -> str:
    """Three digits for people: ``1.21 GiB``. Never parsed again."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < KIB:
            break
        value, unit = value / KIB, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
