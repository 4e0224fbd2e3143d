"""``python -m carmel.firstboot``: what ``carmel-firstboot.service`` runs. Exit status 1 when the file was refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from carmel.firstboot.record import FILE, Record, nothing_is_new
from carmel.paths import Paths


def main() -> int:
    paths = Paths.from_environment({}, root=True)
    if nothing_is_new(Record.read(paths.firstboot_record), Path("/")):
        message = f"{FILE} is applied, and nothing is new"
        sys.stderr.write(f"<6>{message}\n")
        paths.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        paths.firstboot_report.write_text(json.dumps({"state": "Unchanged", "message": message, "hint": None}))
        paths.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        return 0
    # Only what applies a file takes the time to load its reader: seconds, on an emulated processor.
    import asyncio

    from carmel.firstboot.applying import FirstBoot, State
    from carmel.run import SystemRunner

    report = asyncio.run(FirstBoot(paths, SystemRunner()).run())
    refused = report.state is State.REFUSED
    # The journal takes the priority from the front (sd-daemon(3)).
    hint = f"; {report.hint}" if report.hint else ""
    sys.stderr.write(f"<{3 if refused else 6}>{report.message}{hint}\n")
    report.write(paths.firstboot_report)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
