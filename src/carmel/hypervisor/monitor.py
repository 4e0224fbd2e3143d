"""QEMU's monitor of one VM: connected, and connected again when it was lost; and the VM's state, by its events.

States follow QEMU's run states (``query-status``, qapi/run-state.json). With ``-action shutdown=pause,panic=pause``
a guest that ends leaves QEMU in ``shutdown`` or ``guest-panicked`` until it is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from carmel.errors import CarmelError
from carmel.hypervisor import logs
from carmel.hypervisor.departures import Departures
from carmel.hypervisor.failures import QEMUNotAnswering, not_running
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.qmp import ANSWER_SECONDS, QmpConnection, QmpEvent
from carmel.hypervisor.running import Running
from carmel.paths import MachinePaths

_log = logging.getLogger(__name__)
_RECONNECT_SECONDS = (0.1, 0.5, 2.0, 5.0)
_PAUSED = frozenset({"paused", "prelaunch", "inmigrate", "save-vm", "restore-vm", "io-error", "finish-migrate"})


class Monitor:
    """``changed`` is called with what changed, ``left`` with QEMU's id of a device that is gone and that nobody waited
    for. ``qemu`` ``None``: there is no process any more."""

    def __init__(
        self,
        uid: str,
        paths: MachinePaths,
        qemu: Running | None,
        *,
        changed: Callable[[str], None],
        left: Callable[[str], None],
    ) -> None:
        self.departures = Departures()
        self._uid = uid
        self._paths = paths
        self._qemu = qemu
        self._changed = changed
        self._left = left
        self._qmp: QmpConnection | None = None
        self._state = MachineState.PAUSED if qemu is not None else MachineState.ENDED
        self._guest_reason: str | None = None
        self._log_seen = -1
        self._tasks: set[asyncio.Task[None]] = set()
        if qemu is not None:
            self.background(self._watch_process(qemu))

    @property
    def state(self) -> MachineState:
        return self._state

    @property
    def guest_reason(self) -> str | None:
        """What is known of why the guest panicked."""
        return self._guest_reason

    @property
    def qmp(self) -> QmpConnection:
        if self._qmp is not None:
            return self._qmp
        if self._state is MachineState.ENDED:
            raise not_running(self._uid)
        raise QEMUNotAnswering("QEMU's monitor is not connected at the moment")

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run one QMP command. Raises ``QMPFailed``, ``QEMUNotAnswering``, ``Refused`` (``MachineNotRunning``)."""
        return await self.qmp.execute(command, arguments)

    async def attach(self, *, seconds: float = ANSWER_SECONDS) -> None:
        """Connect the monitor and read the state. Raises ``QEMUNotAnswering``."""
        qmp = QmpConnection(self._uid, self._on_event, self._on_lost)
        await qmp.connect(self._paths.qmp_socket, seconds=seconds)
        self._qmp = qmp
        answer = await qmp.execute("query-status", seconds=seconds)
        self.set_state(_state_of(str(answer["status"])), "attached")

    def attach_later(self) -> None:
        """Go on trying in the background."""
        self.background(self._reattach())

    async def detach(self) -> None:
        """Close the monitor and follow nothing any more; the processes are still watched."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.disconnect()

    async def quit(self, *, seconds: float) -> bool:
        """Ask QEMU to close its images and end. Whether it said that it will."""
        if self._qmp is None:
            return False
        with contextlib.suppress(CarmelError):
            await self._qmp.execute("quit", seconds=seconds)
            return True
        return False

    async def disconnect(self) -> None:
        qmp, self._qmp = self._qmp, None
        if qmp is not None:
            await qmp.close()

    async def look_for_panic(self) -> None:
        """Whether the guest hangs in a panic that only its console tells of."""
        size = await asyncio.to_thread(logs.size_of, self._paths.serial_log)
        if self._state is not MachineState.RUNNING or size == self._log_seen:
            return
        self._log_seen = size
        message = await asyncio.to_thread(logs.panic_message, self._paths.serial_log)
        if message is not None:
            self._guest_reason = message
            self.set_state(MachineState.PANICKED, "guest panicked")
            # It would spin for ever.
            await self.execute("stop")

    def set_state(self, state: MachineState, what: str) -> None:
        if state is not self._state or what == "attached":
            self._state = state
            self._changed(what)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_event(self, event: QmpEvent) -> None:
        match event.name:
            case "SHUTDOWN" if event.data.get("guest"):
                self.set_state(MachineState.SHUTDOWN, "guest shut down")
            case "GUEST_PANICKED":
                self._guest_reason = _panic_reason(event.data)
                self.set_state(MachineState.PANICKED, "guest panicked")
            case "STOP" if self._state is MachineState.RUNNING:
                self.set_state(MachineState.PAUSED, "paused")
            case "RESUME":
                self.set_state(MachineState.RUNNING, "resumed")
            case "RESET" if self._state in (MachineState.SHUTDOWN, MachineState.PANICKED):
                self.set_state(MachineState.PAUSED, "reset")
            case "DEVICE_DELETED":
                self._gone(str(event.data.get("device")))
            case "VSERPORT_CHANGE" if event.data.get("id") == "agent":
                self._changed("guest agent")
            case _:
                pass

    def _gone(self, device: str) -> None:
        if not self.departures.gone(device):
            self._left(device)

    def _on_lost(self) -> None:
        self._qmp = None
        if self._qemu is not None and not self._qemu.ended:
            self.attach_later()

    async def _reattach(self) -> None:
        """QEMU takes one monitor client at a time; whoever had it may have gone."""
        attempt = 0
        while self._qmp is None and self._qemu is not None:
            if await self._qemu.wait_for(_RECONNECT_SECONDS[min(attempt, len(_RECONNECT_SECONDS) - 1)]):
                return
            with contextlib.suppress(CarmelError):
                await self.attach()
            attempt += 1

    async def _watch_process(self, qemu: Running) -> None:
        await qemu.wait()
        self.departures.give_up(not_running(self._uid))
        # An end that the guest brought about is kept: collect() tells of it.
        if self._state not in (MachineState.SHUTDOWN, MachineState.PANICKED):
            self.set_state(MachineState.ENDED, "ended")


def _state_of(status: str) -> MachineState:
    if status == "running":
        return MachineState.RUNNING
    if status == "shutdown":
        return MachineState.SHUTDOWN
    if status == "guest-panicked":
        return MachineState.PANICKED
    if status not in _PAUSED:
        _log.info("run state %s is taken for paused", status)
    return MachineState.PAUSED


def _panic_reason(data: Any) -> str:
    info = data.get("info") or {}
    kind = info.get("type")
    return f"the guest's kernel panicked ({kind})" if kind else "the guest's kernel panicked"
