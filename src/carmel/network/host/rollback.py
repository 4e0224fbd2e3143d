"""The process that puts an uplink back: ``python -m carmel.network.host.rollback RECORD``.

It runs in the uplink's network namespace, goes to the background, and ends when the record is settled one way or the
other.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pyroute2 import IPRoute

from carmel.network.host.takeover import Stage, now, read, roll_back_if_due

_LOOK_SECONDS = 1.0


def watch(file: Path) -> None:
    """Until the record is gone, confirmed or rolled back."""
    while (record := read(file)) is not None and record.stage is Stage.PENDING:
        if record.overdue:
            with IPRoute() as route:
                roll_back_if_due(route, file)
            return
        time.sleep(min(_LOOK_SECONDS, max(0.0, record.deadline - now())))


def main() -> None:
    file = Path(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    watch(file)


if __name__ == "__main__":
    main()
