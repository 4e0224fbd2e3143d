"""Commit-confirm: an uplink with the host's own addresses goes into a bridge for good only if somebody confirms.

Before anything is changed, what there is is written to a file, and a process of its own is started that puts it back at
the deadline unless the file says that it was confirmed. It needs nothing of the daemon, which may be killed, upgraded
or cut off in the meantime. Should that process be killed too, the next start of the daemon does its work. A reboot
undoes what was not confirmed by itself, for nothing of it is in the host's own configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
from pyroute2 import IPRoute

from carmel.errors import Refused, Unavailable
from carmel.network.dataplane import NetworkPlan, Takeover, TakeoverStage
from carmel.network.host.apply import put_back, routes_of
from carmel.network.host.kernel import KernelState
from carmel.network.host.netlink import Netlink
from carmel.network.host.plan import bridge_of
from carmel.run import Command, Limits, Runner


class Stage(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"


_TOLD = {
    Stage.PENDING: TakeoverStage.WAITING,
    Stage.CONFIRMED: TakeoverStage.CONFIRMED,
    Stage.ROLLED_BACK: TakeoverStage.ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class Record:
    """How an uplink was before it was taken over. ``deadline``: seconds of CLOCK_BOOTTIME in the boot ``boot``.
    ``started`` (seconds since 1970, by a clock that may be wrong) and ``seconds`` (what was left then) are for people.
    """

    stage: Stage
    digest: str
    bridge: str
    uplink: str
    mtu: int
    addresses: list[str]
    routes: list[dict[str, Any]]
    boot: str
    deadline: float
    started: float
    seconds: float

    @property
    def overdue(self) -> bool:
        return now() >= self.deadline


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read(file: Path) -> Record | None:
    """``None``: there is none, or a disk's fault left nothing that can be used."""
    try:
        values = orjson.loads(file.read_bytes())
        return Record(**{**values, "stage": Stage(values["stage"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def write(file: Path, record: Record) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        out.write(orjson.dumps(asdict(record)))
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Against the process that rolls back."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def roll_back_if_due(route: IPRoute, file: Path) -> None:
    """Put back what is pending and overdue. Harmless to repeat."""
    with locked(file.parent):
        record = read(file)
        if record is None or record.stage is not Stage.PENDING or not record.overdue:
            return
        if record.boot == boot_id():
            put_back(route, record.uplink, record.bridge, record.mtu, record.addresses, record.routes)
        write(file, replace(record, stage=Stage.ROLLED_BACK))


class Takeovers:
    """``folder`` outlives a reboot. Used by one call at a time."""

    def __init__(self, netlink: Netlink, runner: Runner, folder: Path, namespace: Path | None) -> None:
        self._netlink = netlink
        self._runner = runner
        self._folder = folder
        self._into = [] if namespace is None else ["nsenter", f"--net={namespace}", "--"]

    async def begin(self, network: NetworkPlan, state: KernelState) -> None:
        """Before ``network`` is made. Raises ``Refused`` (``RolledBack``) if nobody confirmed these very settings."""
        assert network.uplink is not None
        record = await asyncio.to_thread(read, self._file(network))
        if record is not None and record.digest == _digest(network):
            if record.stage is not Stage.ROLLED_BACK:
                return
            if record.seconds == network.uplink.confirm_seconds:
                raise Refused(
                    f"the uplink {record.uplink} was put back, since nobody confirmed that the host could be reached",
                    code="RolledBack",
                    hint="to try once more change its confirmSeconds, or delete the network and make it again",
                )
            return
        uplink = state.links[network.uplink.members[0]]
        if not uplink.addresses:
            return
        routes = await self._netlink.call(lambda route: routes_of(route, uplink.index))
        seconds = network.uplink.confirm_seconds
        record = Record(
            Stage.PENDING, _digest(network), bridge_of(network), uplink.name, uplink.mtu,
            sorted(map(str, uplink.addresses)), routes, boot_id(), now() + seconds, time.time(), seconds,
        )  # fmt: skip
        try:
            await asyncio.to_thread(self._create, self._file(network), record)
            await self._start_watch(self._file(network))
        except BaseException as exc:
            # Nothing was changed, and nothing will be without somebody who puts it back.
            await self.forget(network)
            if isinstance(exc, OSError):
                raise Unavailable(
                    f"cannot note how {uplink.name} is set up now: {exc.strerror}", code="NotNoted"
                ) from exc
            raise

    async def confirm(self, network: NetworkPlan) -> None:
        file = self._file(network)

        def mark() -> bool:
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder):
                record = read(file)
                if record is None or record.stage is not Stage.PENDING:
                    return False
                write(file, replace(record, stage=Stage.CONFIRMED))
                return True

        if not await asyncio.to_thread(mark):
            raise Refused(f"nothing of the network {network.name} waits to be confirmed", code="NothingToConfirm")

    async def state(self, network: NetworkPlan) -> Takeover | None:
        record = await asyncio.to_thread(read, self._file(network)) if network.uplink is not None else None
        if record is None:
            return None
        started = datetime.fromtimestamp(record.started, UTC)
        return Takeover(_TOLD[record.stage], started, started + timedelta(seconds=record.seconds))

    async def forget(self, network: NetworkPlan) -> None:
        """It is being removed, and may be made anew."""
        if network.uplink is not None:
            await asyncio.to_thread(lambda: self._file(network).unlink(missing_ok=True))

    async def keep_only(self, bridges: Collection[str]) -> None:
        """Forget those that no network has any more."""

        def remove() -> None:
            for file in self._folder.glob("*.json"):
                if file.stem not in bridges:
                    file.unlink(missing_ok=True)

        await asyncio.to_thread(remove)

    async def recover(self) -> None:
        """After a start: do what a watching process that was killed would have done, and watch on."""
        for file in await asyncio.to_thread(lambda: sorted(self._folder.glob("*.json"))):
            record = await asyncio.to_thread(read, file)
            if record is None or record.stage is not Stage.PENDING:
                continue
            if record.boot != boot_id():
                await asyncio.to_thread(write, file, replace(record, stage=Stage.ROLLED_BACK))
            elif record.overdue:
                await self._netlink.call(lambda route, file=file: roll_back_if_due(route, file))  # type: ignore[misc]
            else:
                await self._start_watch(file)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[frozenset[str]]:
        """While links are changed nothing is rolled back. Gives the bridges that were: they are not made again."""
        if not await asyncio.to_thread(self._folder.is_dir):
            yield frozenset()
            return
        async with _in_thread(locked(self._folder)):
            records = await asyncio.to_thread(lambda: [read(file) for file in self._folder.glob("*.json")])
            yield frozenset(one.bridge for one in records if one is not None and one.stage is Stage.ROLLED_BACK)

    def _file(self, network: NetworkPlan) -> Path:
        return self._folder / f"{bridge_of(network)}.json"

    def _create(self, file: Path, record: Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder):
            write(file, record)

    async def _start_watch(self, file: Path) -> None:
        """It goes to the background by itself when it is ready."""
        argv = [*self._into, sys.executable, "-m", "carmel.network.host.rollback", str(file)]
        await self._runner.run(Command(argv, limits=Limits(seconds=20)))


def _digest(network: NetworkPlan) -> str:
    uplink = network.uplink
    return hashlib.sha256(repr((uplink and (uplink.members, uplink.takeover), network.mtu)).encode()).hexdigest()


@contextlib.asynccontextmanager
async def _in_thread(lock: contextlib.AbstractContextManager[None]) -> AsyncIterator[None]:
    await asyncio.to_thread(lock.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(lock.__exit__, None, None, None)
