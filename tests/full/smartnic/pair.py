"""The lab ``smartnic`` as tests see it: a server, its SmartNIC, and the host outside that is the PCIe between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.daemon import Daemon
from tests.system.lab.machine import LabMachine, lab_machine

LAB, NIC = "lab-smartnic", "lab-smartnic-nic"


@dataclass
class Pair:
    """``host`` and ``nic`` are the machines' own APIs and shells; ``outer`` runs both."""

    outer: Daemon
    host: LabMachine
    nic: LabMachine


@contextlib.contextmanager
def lab_pair(outer: Daemon, home: Path) -> Iterator[Pair]:
    with lab_machine(outer, home, "smartnic") as host:
        nic = LabMachine(outer, host.cli, NIC, {"HOME": str(home)})
        try:
            yield Pair(outer, host, nic)
        finally:
            nic.client.close()
