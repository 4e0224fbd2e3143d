"""Plays the daemon that is killed: launches the VM of a pickled config, says so, and stays.

python daemon_role.py STATE RUNTIME CACHE CONFIG
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

from carmel.hypervisor.config import MachineConfig
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.run import SystemRunner


async def main(paths: Paths, config: MachineConfig) -> None:
    hypervisor = QemuHypervisor(paths, SystemRunner())
    machine = await hypervisor.launch(config)
    sys.stdout.write(f"{machine.launch.launch_id} {machine.launch.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    state, runtime, cache, pickled = map(Path, sys.argv[1:5])
    asyncio.run(main(Paths(state, runtime, cache), pickle.loads(pickled.read_bytes())))
