"""Plays a daemon without rights: holds the VM of a pickled config, moves it, is refused what needs root, and tells.

python rootless_role.py DIRECTORY USER

Started as root, since the interpreter may lie where only root can come; becomes USER before it does anything.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - what is imported late would be out of reach
import dataclasses
import json
import os
import pickle
import pwd
import re
import sys
from pathlib import Path

from carmel.errors import Refused
from carmel.hypervisor.config import MachineConfig, Pinning
from carmel.hypervisor.pinning import pinning_abilities
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.paths import Paths
from carmel.run import SystemRunner


def held(machine: QemuMachine) -> dict[str, list[int]]:
    found: dict[str, set[int]] = {}
    for task in (Path("/proc") / str(machine.launch.pid) / "task").iterdir():
        match = re.match(r"CPU (\d+)/", (task / "comm").read_text())
        found.setdefault(match[1] if match else "others", set()).update(os.sched_getaffinity(int(task.name)))
    return {name: sorted(cpus) for name, cpus in found.items()}


async def refusal(machine: QemuMachine, pinning: Pinning) -> str:
    try:
        await machine.repin(pinning)
    except Refused as exc:
        return exc.code
    return "moved"


async def main(home: Path, config: MachineConfig) -> None:
    assert config.pinning is not None
    hypervisor = QemuHypervisor(Paths(home / "state", home / "run", home / "cache"), SystemRunner())
    machine = await hypervisor.launch(config, paused=True)
    told: dict[str, object] = {"means": pinning_abilities().means, "held": held(machine)}
    told["bound"] = "bind:0" in (Path("/proc") / str(machine.launch.pid) / "numa_maps").read_text()
    cpu = config.pinning.emulator[:1]
    near = dataclasses.replace(config.pinning, vcpus=(cpu, cpu))
    await machine.repin(near)
    told["moved"] = held(machine)
    told["dedicated"] = await refusal(machine, dataclasses.replace(near, exclusive=True))
    told["far"] = await refusal(machine, dataclasses.replace(near, memory_nodes=(1,)))
    await machine.kill("done")
    await hypervisor.close()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    place, user = Path(sys.argv[1]), pwd.getpwnam(sys.argv[2])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    asyncio.run(main(place, pickle.loads((place / "config.pickle").read_bytes())))
