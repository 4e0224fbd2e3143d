"""What a SmartNIC's Arm side is, besides a NIC: three words. (``host_facts`` reads more, and imports much for it.)"""

from __future__ import annotations

import platform
import re
import socket
from dataclasses import dataclass

from carmel.hardware.sysroot import Sysroot


@dataclass(frozen=True, slots=True)
class NicFacts:
    """``name``: the machine's, as an object's."""

    name: str
    kernel: str
    boot_id: str | None


def read_nic_facts(root: Sysroot) -> NicFacts:
    given = socket.gethostname().lower().split(".")[0]
    name = re.sub(r"[^a-z0-9-]+", "-", given).strip("-")[:63].strip("-") or "nic"
    return NicFacts(name, f"{platform.system()} {platform.release()}", root.word("proc/sys/kernel/random/boot_id"))
