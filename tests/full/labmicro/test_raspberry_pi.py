"""A board of the size of a Raspberry Pi 4: what its interrupt controller allows is known before a VM is tried."""

from __future__ import annotations

import pytest

from carmel.client.objects import condition, dig
from tests.daemon import is_ready
from tests.system.lab.machine import LabMachine

pytestmark = pytest.mark.timeout(1200)


def test_a_small_board_and_its_limits(lab: LabMachine) -> None:
    hardware = lab.wait_for("host", lab.name, is_ready, namespace=None)["status"]["hardware"]
    assert (len(hardware["sockets"]), len(hardware["numaNodes"])) == (1, 1)
    assert hardware["kvm"]["gicVersion"] == 2
    # 0xd08 is Cortex-A72 (its manual, MIDR_EL1).
    assert set(lab.shell("sed -n 's/^CPU part.*: //p' /proc/cpuinfo").split()) == {"0xd08"}
    assert "GICv2" in lab.shell("dmesg | grep -i gicv2")
    # It is QEMU's machine and says so: nothing is claimed about a board that is not there.
    assert dig(hardware, "board", "id") is None

    lab.create("vm", lab.micro_vm("nine", cpu={"count": 9}))
    refused = lab.wait_for("vm", "nine", lambda vm: condition(vm, "Accepted").get("status") == "False")
    assert "8" in condition(refused, "Accepted")["message"]
    lab.delete("vm", "nine")
    lab.wait_gone("vm", "nine")
