"""What differs between guest architectures: one strategy each, and no ``if`` about it anywhere else."""

from __future__ import annotations

from carmel.errors import Refused
from carmel.hypervisor.arch.aarch64 import Aarch64
from carmel.hypervisor.arch.base import Architecture
from carmel.hypervisor.arch.x86_64 import X86


def architecture(name: str) -> Architecture:
    """The strategy of ``name``. Raises ``Refused`` (``UnknownArchitecture``)."""
    for strategy in (Aarch64(), X86()):
        if strategy.name == name:
            return strategy
    raise Refused(f"there is no support for {name} guests", code="UnknownArchitecture")


__all__ = ["Architecture", "architecture"]
