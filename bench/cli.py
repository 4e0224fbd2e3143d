"""``carmel get vm`` as a user's shell sees it: wall time of the whole process, with 1 and with 100 VMs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.harness import VMS, Daemon, daemon, machine, micro_vm, milliseconds, table

ROUNDS = 15


def main() -> None:
    print(f"Measured on {machine()} by `python -m bench.cli`.\n")
    with daemon() as running:
        api = running.api()
        rows = []
        for count in (1, 100):
            for number in range(count - len(api.call("GET", VMS)["items"])):
                api.call("POST", VMS, micro_vm(f"cli-{count}-{number}", powerState="PoweredOff"))
            rows.append((f"`carmel get vm`, {count} VMs", milliseconds([get_vm(running) for _ in range(ROUNDS)])))
        rows.append(("`python -c pass`", milliseconds([timed([sys.executable, "-c", "pass"]) for _ in range(ROUNDS)])))
        print(table("Whole processes", rows, ("command", "wall time")))


def get_vm(running: Daemon) -> float:
    carmel = str(Path(sys.executable).with_name("carmel"))
    environment = {**os.environ, "CARMEL_STATE_DIR": str(running.state), "CARMEL_RUN_DIR": str(running.run)}
    return timed([carmel, "get", "vm"], environment)


def timed(command: list[str], environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
