"""``python -m carmel.dcui``: draws the status page on standard output again and again, until it is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime

from carmel.client.api import Client
from carmel.client.contexts import LOCAL
from carmel.client.endpoint import Context, UnixEndpoint
from carmel.dcui.facts import gather
from carmel.dcui.page import render
from carmel.paths import Paths
from carmel.run import SystemRunner

REFRESH_SECONDS = 10.0
# console_codes(4): home, and erase what is left of a line or of the screen.
_HOME, _TO_LINE_END, _TO_SCREEN_END, _NO_CURSOR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?25l"


def main() -> int:
    asyncio.run(_run())
    return 0


async def _run() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    paths, runner = Paths.from_environment(), SystemRunner()
    client = Client(Context(LOCAL, UnixEndpoint(paths.api_socket)))
    while not stop.is_set():
        # The client waits for its answers: this program has nothing else to do.
        facts = await gather(paths, runner, client)
        size = _size()
        page = render(facts, datetime.now(UTC), columns=size.columns, rows=size.lines)
        drawn = page.replace("\n", f"{_TO_LINE_END}\r\n")
        sys.stdout.write(f"{_NO_CURSOR}{_HOME}{drawn}{_TO_LINE_END}{_TO_SCREEN_END}")
        sys.stdout.flush()
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


def _size() -> os.terminal_size:
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        found = os.terminal_size((80, 25))
    return found if found.columns and found.lines else os.terminal_size((80, 25))


if __name__ == "__main__":
    sys.exit(main())
