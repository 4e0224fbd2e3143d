"""An Open vSwitch of the test's own: database, sockets and datapath in a folder and a network namespace of its own.

Its datapath is the one in user space (``netdev``), which needs no kernel module and tracks connections by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from carmel.network.ovs.switch import Switch
from carmel.run import Command, Limits, SystemRunner

PROGRAMS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-ofctl", "ovs-appctl", "ovs-vsctl")
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


def missing() -> str | None:
    """Why there can be none here."""
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        return "needs root and /dev/net/tun"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(absent)} (openvswitch-switch)" if absent or not _SCHEMA.exists() else None


class Server:
    def __init__(self, folder: Path, namespace: Path) -> None:
        self.folder = folder
        self._env = {f"OVS_{name}": str(folder) for name in ("RUNDIR", "LOGDIR", "DBDIR")}
        self._into = ["nsenter", f"--net={namespace}", "--"]

    async def run(self, *argv: str | Path, check: bool = True) -> str:
        command = Command([*self._into, *argv], env=self._env, limits=Limits(seconds=30))
        return (await SystemRunner().run(command, check=check)).text

    async def vsctl(self, *argv: str) -> str:
        return await self.run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=20", *argv)

    async def start(self) -> None:
        """Both go to the background when they are ready."""
        database = self.folder / "conf.db"
        await self.run("ovsdb-tool", "create", database, _SCHEMA)
        await self.run(
            "ovsdb-server", database, f"--remote=punix:{self.folder}/db.sock", "--pidfile", "--no-chdir", "--detach",
            "--log-file", "--verbose=console:off",
        )  # fmt: skip
        # Twenty-five times as often as otherwise, so that tests need not wait long (ovs-vswitchd.conf.db(5)).
        await self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:max-revalidator=20")
        await self.start_switching()

    async def start_switching(self) -> None:
        await self.run(
            "ovs-vswitchd", f"unix:{self.folder}/db.sock", "--pidfile", "--no-chdir", "--detach", "--log-file",
            "--verbose=console:off",
        )  # fmt: skip

    async def end(self, program: str, number: signal.Signals = signal.SIGTERM) -> None:
        file = self.folder / f"{program}.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int(file.read_text())
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, number)
                await asyncio.to_thread(_until_ended, descriptor)
            finally:
                os.close(descriptor)
            file.unlink(missing_ok=True)

    async def settled(self) -> None:
        """Until the datapath has looked at the flows again, and told what it did. Nobody but tests waits for that: it
        looks within milliseconds of a change, and then now and then."""
        if (self.folder / "cmb-ports.mgmt").exists():
            await self.run("ovs-appctl", "revalidator/wait")

    def switch(self) -> Switch:
        return Switch(SystemRunner(), self.folder, "netdev")


def _until_ended(descriptor: int) -> None:
    import select

    select.select([descriptor], [], [], 20)


@contextlib.asynccontextmanager
async def server(folder: Path, namespace: Path) -> AsyncIterator[Server]:
    made = Server(folder, namespace)
    try:
        await made.start()
        yield made
    finally:
        for program in ("ovs-vswitchd", "ovsdb-server"):
            await made.end(program)
