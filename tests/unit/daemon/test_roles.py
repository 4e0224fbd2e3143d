"""What a SmartNIC's daemon has no use for is not loaded there: its cores are slow, and every module is time."""

from __future__ import annotations

import subprocess
import sys

NOT_ON_A_NIC = (
    "carmel.controllers.virtualmachine",
    "carmel.controllers.placement",
    "carmel.placement",
    "carmel.storage.build.builder",
    "carmel.hypervisor.qemu",
    "carmel.hypervisor.commandline",
    "carmel.network.backends",
    "cryptography",
    "yaml",
)


def test_a_smartnic_loads_nothing_that_runs_vms() -> None:
    code = "import sys, carmel.daemon.smartnic; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "carmel.network.host.hostdataplane" in loaded
    assert [name for name in NOT_ON_A_NIC if name in loaded] == []
