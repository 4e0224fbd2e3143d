"""The process: options, log, signals, exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from carmel.daemon.options import Options, Role, parse_options
from carmel.errors import CarmelError

if TYPE_CHECKING:
    from carmel.daemon.base import BaseDaemon

_log = logging.getLogger("carmel.daemon")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to end. Exit status: 0, or that of the error that kept us from starting (``carmel.errors``)."""
    options = parse_options(argv)
    set_up_log(options.log_level)
    try:
        asyncio.run(_run(options))
    except CarmelError as error:
        _log.error("%s%s", error.message, f"; {error.hint}" if error.hint else "")
        return error.exit_status
    except OSError as error:
        _log.error("cannot start: %s", error)
        return 5
    return 0


def set_up_log(level: str) -> None:
    """One line an entry on standard error. Under systemd the journal has time and priority (sd-daemon(3))."""
    journal = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter() if journal else _PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # uvicorn tells each start and stop of its own; asyncio each slow callback of debug mode; pyroute2 each message.
    for chatty in ("uvicorn", "uvicorn.error", "asyncio", "qemu.qmp", "pyroute2.netlink"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _PlainFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _JournalFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(f"{prefix}{line}" for line in super().format(record).splitlines())


def _priority(level: int) -> int:
    """syslog(3)'s: 2 critical, 3 error, 4 warning, 6 informational, 7 debug."""
    bounds = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for bound, priority in bounds if level >= bound), 7)


def _daemon(options: Options) -> BaseDaemon:
    """Imported here and not above: --help and --version need none of it, and it takes half a second on a small board.
    A SmartNIC has no use for what runs VMs, and its cores are slower still."""
    if options.role is Role.SMARTNIC:
        from carmel.daemon.smartnic import SmartNicDaemon

        return SmartNicDaemon(options)
    from carmel.daemon.daemon import Daemon

    return Daemon(options)


async def _run(options: Options) -> None:
    daemon = _daemon(options)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The settings are all in the store: there is nothing to read again.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await daemon.start()
    try:
        await daemon.run(stop)
    finally:
        await daemon.stop()
