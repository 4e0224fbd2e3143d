"""Plays the daemon that is killed: launches the VM of a pickled config, says so, and stays.

python daemon_role.py STATE RUNTIME CACHE CONFIG
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.run import SystemRunner


async def main(state: str, runtime: str, cache: str, config: str) -> None:
    hypervisor = QemuHypervisor(Paths(Path(state), Path(runtime), Path(cache)), SystemRunner())
    machine = await hypervisor.launch(pickle.loads(Path(config).read_bytes()))
    sys.stdout.write(f"{machine.launch.launch_id} {machine.launch.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
