"""Whether Open vSwitch really switches, and what can be done about it when it does not.

Three things go wrong. ovs-vswitchd was started anew: all flows are gone, and with them everything is closed until they
are put back. The datapath hands packets up that nobody takes (in 1 of 3 starts of a NIC with one CPU, until
ovs-vswitchd was started again): packets are *lost* while nothing passes. And ovs-vswitchd may not run.

It is started again only where it is ours to do so: a service of systemd that has no bridges but Carmel's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError
from carmel.network.ovs.ovsdb import Ovsdb
from carmel.run import Command, Limits, Runner

SERVICE = "ovs-vswitchd.service"
"""Debian's and Ubuntu's."""
_LIMITS = Limits(seconds=60)
_LOOKUPS = re.compile(r"lookups:\s*hit:(\d+)\s+missed:(\d+)\s+lost:(\d+)")


@dataclass(frozen=True, slots=True)
class Lookups:
    """Packets since the datapath was made: for which a flow was known, for which none was, and which of these could not
    be handed up."""

    hit: int = 0
    missed: int = 0
    lost: int = 0


def read_lookups(shown: str) -> Lookups | None:
    """All datapaths of ``ovs-dpctl show`` together; ``None`` if there is none."""
    found = [tuple(map(int, one)) for one in _LOOKUPS.findall(shown)]
    return Lookups(*map(sum, zip(*found, strict=True))) if found else None


def is_deaf(before: Lookups, now: Lookups) -> bool:
    """Between these, packets came and each of them was lost. (Under too much load some are lost, and others pass.)"""
    lost = now.lost - before.lost
    return lost > 0 and lost >= now.missed - before.missed and now.hit == before.hit


@dataclass(frozen=True, slots=True)
class Trouble:
    """``reason`` is one CamelCase word. ``heals``: starting ovs-vswitchd again may help."""

    reason: str
    message: str
    heals: bool = False


class Health:
    """``folder`` has Open vSwitch's sockets. Used by one at a time."""

    def __init__(self, runner: Runner, database: Ovsdb, folder: Path) -> None:
        self._runner = runner
        self._database = database
        self._folder = folder
        self._before: Lookups | None = None

    def start_of_vswitchd(self) -> tuple[int, str] | None:
        """Another value after each start; ``None``: it does not run."""
        file = self._folder / "ovs-vswitchd.pid"
        try:
            return file.stat().st_mtime_ns, file.read_text().strip()
        except OSError:
            return None

    async def look(self) -> Trouble | None:
        if self.start_of_vswitchd() is None:
            return Trouble("SwitchStopped", "ovs-vswitchd does not run: nothing is switched anew", heals=True)
        shown = await self._runner.run(
            Command(["ovs-appctl", "dpctl/show"], env={"OVS_RUNDIR": str(self._folder)}, limits=_LIMITS), check=False
        )
        now = read_lookups(shown.text) if shown.status == 0 else None
        before, self._before = self._before, now
        if now is None or before is None or not is_deaf(before, now):
            return None
        return Trouble(
            "PacketsLost",
            f"Open vSwitch takes no packets from its datapath: {now.lost - before.lost} were lost, and none passed",
            heals=True,
        )

    async def is_ours_to_restart(self) -> bool:
        """A service that runs, on a machine where nobody else has bridges."""
        try:
            active = await self._runner.run(Command(["systemctl", "is-active", SERVICE], limits=_LIMITS), check=False)
            seen = await self._database.observe()
        except CarmelError:
            return False
        return active.text.strip() in {"active", "activating", "failed"} and not (
            seen.others.keys() - seen.bridges.keys()
        )

    async def restart(self) -> None:
        """Raises ``ProgramFailed``. Flows are gone then."""
        self._before = None
        await self._runner.run(Command(["systemctl", "restart", SERVICE], limits=_LIMITS))
