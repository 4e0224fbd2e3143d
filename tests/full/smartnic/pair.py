"""The lab ``smartnic`` as tests see it: a server, its SmartNIC, and the host outside that is the PCIe between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError
from tests.daemon import Daemon, has_power
from tests.system.lab.machine import LabMachine, lab_machine

LAB, NIC = "lab-smartnic", "lab-smartnic-nic"


@dataclass
class Pair:
    """``host`` and ``nic`` are the machines' own APIs and shells; ``outer`` runs both.

    The NIC's API is reached through its host, its shell without.
    """

    outer: Daemon
    host: LabMachine
    nic: LabMachine

    def power_off(self, machine: LabMachine) -> None:
        """As if its plug were pulled."""
        self.outer.patch("vm", machine.name, {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
        self.outer.wait_for("vm", machine.name, has_power("PoweredOff"))

    def power_on(self, machine: LabMachine) -> None:
        """Until its daemon answers."""
        self.outer.patch("vm", machine.name, {"spec": {"powerState": "PoweredOn"}})
        self.outer.wait_for("vm", machine.name, has_power("PoweredOn"))
        await_answer(machine)

    def kill_daemon(self, machine: LabMachine) -> None:
        """kill -9; init starts another."""
        machine.shell(f"kill -9 {machine.daemon_pid()}")


def await_answer(machine: LabMachine) -> None:
    """Until its daemon answers: the NIC's through the host's relay."""
    deadline = time.monotonic() + machine.patience
    while True:
        try:
            machine.client.call("GET", "/readyz")
        except CarmelError:
            assert time.monotonic() < deadline, machine.last_words()
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def lab_pair(outer: Daemon, home: Path) -> Iterator[Pair]:
    """With the micro guest's image on the host."""
    with lab_machine(outer, home, "smartnic") as host:
        nic = LabMachine(outer, host.cli, NIC, {"HOME": str(home)})
        try:
            host.make_micro_image()
            yield Pair(outer, host, nic)
        finally:
            nic.client.close()
