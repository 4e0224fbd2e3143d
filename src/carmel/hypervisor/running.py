"""The processes of one VM: QEMU and its helpers, watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterable

from carmel.cancellation import end_tasks
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.record import ProcessId

_HELPER_GRACE_SECONDS = 2.0
_KILLED_SECONDS = 10.0


class Running:
    """One process that was started here (``child``), or by an earlier daemon.

    Only the parent learns an exit status: for a process of an earlier daemon it stays ``None``.
    """

    def __init__(self, process: ProcessId, table: ProcessTable, child: subprocess.Popen[bytes] | None = None) -> None:
        self.process = process
        self.status: int | None = None
        self._table = table
        self._child = child
        self._watch = asyncio.create_task(self._wait())

    @property
    def ended(self) -> bool:
        return self._watch.done()

    async def wait(self) -> None:
        """Until it is gone. Cancelling the caller leaves the watch."""
        await asyncio.shield(self._watch)

    async def wait_for(self, seconds: float) -> bool:
        """Whether it ended within ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()
        return self.ended

    async def terminate(self) -> None:
        """Ask, then kill: gone when this returns, unless the kernel itself cannot end it."""
        self._table.signal(self.process, signal.SIGTERM)
        if not await self.wait_for(_HELPER_GRACE_SECONDS):
            await self.kill()

    async def kill(self) -> None:
        self._table.signal(self.process, signal.SIGKILL)
        await self.wait_for(_KILLED_SECONDS)

    async def let_go(self) -> None:
        """Stop watching; the process runs on."""
        await end_tasks(self._watch)
        if self._child is not None and self._child.returncode is None:
            # Or Popen would warn of a child that it was not told to forget.
            self._child.returncode = 0

    async def _wait(self) -> None:
        await self._table.wait(self.process)
        if self._child is not None:
            self.status = await asyncio.to_thread(self._child.wait)


async def end_all(processes: Iterable[Running]) -> None:
    await asyncio.gather(*(process.terminate() for process in processes))
