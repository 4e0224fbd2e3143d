"""``python -m carmel.firstboot``: what ``carmel-firstboot.service`` runs. Exit status 1 when the file was refused."""

from __future__ import annotations

import asyncio
import sys

from carmel.firstboot.applying import FirstBoot, State
from carmel.paths import Paths
from carmel.run import SystemRunner


def main() -> int:
    paths = Paths.from_environment({}, root=True)
    report = asyncio.run(FirstBoot(paths, SystemRunner()).run())
    refused = report.state is State.REFUSED
    # The journal takes the priority from the front (sd-daemon(3)).
    hint = f"; {report.hint}" if report.hint else ""
    sys.stderr.write(f"<{3 if refused else 6}>{report.message}{hint}\n")
    report.write(paths.firstboot_report)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
