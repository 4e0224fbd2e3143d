"""How long it takes to read a machine: this one, the recorded server with 128 cores, and one with 1,024 CPUs, beside
hwloc's lstopo where it is installed. Files are in the page cache, as sysfs always is in memory.

Reading is timed on a thread of its own, as the daemon does it. lstopo's time has its process' start in it; what ours
would cost in a process of its own is a row too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import machine, milliseconds, table
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from tests.unit.hardware.machines import server
from tests.unit.hardware.recorded import SERVER, unpack

ROUNDS = 15
_PROGRAM = "import sys; from pathlib import Path; from carmel.hardware.reader import read_hardware; {}"
_LSTOPO = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")


def main() -> None:
    print(f"Measured on {machine()} by `python -m bench.hardware`.\n")
    with tempfile.TemporaryDirectory(prefix="carmel-bench-") as name:
        folder = Path(name)
        roots = {
            "this machine": Path("/"),
            "a recorded server, 128 cores": unpack(SERVER, folder),
            "a synthetic server, 1,024 CPUs": server(folder / "large", nodes=4, cores=512, cluster=4).root,
        }
        rows = [(title, *measured(root)) for title, root in roots.items()]
        print(
            table(
                "Reading a machine",
                rows,
                ("machine", "Carmel, in its thread", "lstopo, a process", "its status as JSON"),
            )
        )
    processes = [
        ("nothing but Python", milliseconds(timed(lambda: run(sys.executable, "-c", "pass")))),
        ("the reader imported", milliseconds(timed(lambda: run(sys.executable, "-c", _PROGRAM.format(""))))),
        (
            "this machine read",
            milliseconds(timed(lambda: run(sys.executable, "-c", _PROGRAM.format("read_hardware()")))),
        ),
    ]
    print(table("In a process of its own", processes, ("what", "time")))


def measured(root: Path) -> tuple[str, str, str]:
    """lstopo needs bit masks beside the lists, which a synthetic machine has not."""
    theirs = "-"
    masks = root / "sys/devices/system/cpu/cpu0/topology/package_cpus"
    if _LSTOPO is not None and masks.exists():
        words = [_LSTOPO, *([] if root == Path("/") else ["--input", str(root)]), "--of", "xml", "-"]
        theirs = milliseconds(timed(lambda: run(*words)))
    status = hardware_status(read_hardware(root)).model_dump_json(by_alias=True, exclude_none=True)
    return milliseconds(timed(lambda: in_thread(lambda: read_hardware(root)))), theirs, f"{len(status) / 1024:.1f} KiB"


def timed(action: Callable[[], object]) -> list[float]:
    """Seconds of each round; one more before them is not counted."""
    action()
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return found


def in_thread(action: Callable[[], object]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


if __name__ == "__main__":
    main()
