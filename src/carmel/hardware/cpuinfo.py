"""What /proc/cpuinfo says of each online CPU. Its shape is each architecture's own (arch/*/kernel/)."""

from __future__ import annotations

import re

from carmel.cpulist import LARGEST
from carmel.hardware.midr import Midr
from carmel.hardware.sysroot import Sysroot, parse_number, printable

_LIMIT = 16 << 20
"""An x86-64 CPU takes about 1.5 KiB, and there can be 4,096."""
_LINE = re.compile(
    r"^(processor|model name|CPU implementer|CPU variant|CPU part|CPU revision)[ \t]*:[ \t]*(.*)$", re.MULTILINE
)

CpuInfo = dict[int, dict[str, str]]
"""By CPU: the lines of its block that matter here."""


def read_cpuinfo(root: Sysroot) -> CpuInfo:
    """Empty where there is no such file."""
    found: CpuInfo = {}
    block: dict[str, str] = {}
    for key, value in _LINE.findall(root.text("proc/cpuinfo", _LIMIT) or ""):
        if key == "processor":
            number = parse_number(value)
            block = {}
            if number is not None and 0 <= number <= LARGEST:
                found[number] = block
        else:
            block[key] = value
    return found


def midr_of(block: dict[str, str]) -> Midr | None:
    """From an Arm CPU's block."""
    words = (block.get(f"CPU {name}") for name in ("implementer", "part", "variant", "revision"))
    implementer, part, variant, revision = (parse_number(word) if word else None for word in words)
    if implementer is None or part is None:
        return None
    return Midr(implementer & 0xFF, part & 0xFFF, (variant or 0) & 0xF, (revision or 0) & 0xF)


def model_of(block: dict[str, str]) -> str | None:
    return printable(block.get("model name", "")) or None
