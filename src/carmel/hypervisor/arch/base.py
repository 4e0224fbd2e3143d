"""The face of a guest architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.config import Accelerator, MachineConfig


class Architecture(Protocol):
    """One processor family, as pure functions of what QEMU can do."""

    @property
    def name(self) -> str:
        """As in ``qemu-system-NAME``."""
        ...

    def machine_type(self, qemu: QemuAbilities) -> str:
        """The newest versioned machine type: its devices stay the same when QEMU is upgraded.

        Raises ``Refused`` (``NoMachineType``).
        """
        ...

    def machine_options(self, config: MachineConfig, accelerator: Accelerator, /) -> Mapping[str, str]:
        """Options of ``-machine`` beside its type. Raises ``Refused`` for what this machine cannot be."""
        ...

    def cpu_model(self, config: MachineConfig, qemu: QemuAbilities, accelerator: Accelerator) -> str:
        """The value of ``-cpu``, features included. Raises ``Refused`` (``UnknownCPUModel``)."""
        ...

    def topology(self, config: MachineConfig) -> Mapping[str, int]:
        """Options of ``-smp`` in the levels that this machine has."""
        ...


def newest(names: Iterable[str], prefix: str) -> str | None:
    """The name ``prefix`` + ``MAJOR.MINOR`` with the highest numbers, ``None`` without any."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.(\d+)")
    versions = [(int(match[1]), int(match[2]), name) for name in names if (match := pattern.fullmatch(name))]
    return max(versions)[2] if versions else None
