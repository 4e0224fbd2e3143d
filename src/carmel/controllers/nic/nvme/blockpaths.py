"""From an NVMeNamespace to the block device that it stands on, and whether that can be reached now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from carmel.controllers.nic.nvme.keys import ExportKeys
from carmel.controllers.runtime import Clock
from carmel.errors import Conflict, Refused
from carmel.hardware.nvme_lookup import Space, space_of, spaces_with_serial
from carmel.hardware.sysroot import Sysroot
from carmel.resources.nvmenamespace import DiskSource, NVMeNamespace, RemoteSource
from carmel.smartnic.nvme.fabrics import LIVE, Target
from carmel.smartnic.nvme.initiator import Initiator


@dataclass(frozen=True, slots=True)
class BlockPath:
    """``space`` is known while its controller is, reached or not. ``away_seconds``: for how long it is not reached."""

    space: Space | None
    away_seconds: float | None = None
    message: str = ""


class BlockPaths:
    """``host_nqn`` is what targets know this NIC by; ``root`` where the kernel's files are."""

    def __init__(self, initiator: Initiator, keys: ExportKeys, host_nqn: str, clock: Clock, root: Path) -> None:
        self._initiator = initiator
        self._keys = keys
        self._host_nqn = host_nqn
        self._clock = clock
        self._root = root
        self._away_since: dict[Target, float] = {}

    async def ensure(self, namespace: NVMeNamespace, others: Iterable[NVMeNamespace]) -> BlockPath:
        """Connect, or find the drive. ``others``: those that may share its connection.

        Raises ``Unavailable`` (``PathAway``), ``Refused`` (``NoInitiator``, ``TargetRefused``, ``DiskMissing``), and
        ``Conflict`` (``DeviceInUse``).
        """
        source = namespace.spec.source
        if source.remote is not None:
            return await self._remote(namespace, source.remote, others)
        assert source.disk is not None, "admission asks for one of the two"
        return BlockPath(await asyncio.to_thread(self._disk, source.disk))

    async def release(self, namespace: NVMeNamespace, others: Iterable[NVMeNamespace]) -> None:
        """The namespace goes: so does its connection, if nobody shares it."""
        remote = namespace.spec.source.remote
        if remote is not None and not any(self._target_of(one) == self._target(remote) for one in others):
            self._away_since.pop(self._target(remote), None)
            await self._initiator.disconnect(self._target(remote))

    async def _remote(
        self, namespace: NVMeNamespace, remote: RemoteSource, others: Iterable[NVMeNamespace]
    ) -> BlockPath:
        target = self._target(remote)
        sharing = [one.spec.stall_seconds for one in others if self._target_of(one) == target]
        # The stall is the connection's: nobody who shares it is told of an error before his time.
        stall = max([namespace.spec.stall_seconds, *sharing])
        chap = None if remote.auth_secret_ref is None else await self._keys.chap(remote.auth_secret_ref.name)
        connection = await self._initiator.ensure(target, stall, chap)
        if connection is None:
            return BlockPath(None, message="the connection is being taken down")
        root = Sysroot(self._root)
        space = await asyncio.to_thread(space_of, root, connection.name, remote.namespace_id)
        if connection.state != LIVE:
            since = self._away_since.setdefault(target, self._clock.monotonic())
            away = self._clock.monotonic() - since
            return BlockPath(space, away, f"the path to {remote.address} is away ({connection.state})")
        self._away_since.pop(target, None)
        if space is None:
            return BlockPath(None, message=f"the target has not shown a namespace {remote.namespace_id} so far")
        return BlockPath(_unclaimed(space))

    def _disk(self, disk: DiskSource) -> Space:
        found = spaces_with_serial(Sysroot(self._root), disk.serial, disk.namespace_id)
        if len(found) != 1:
            how_many = "no NVMe drive" if not found else f"{len(found)} NVMe drives"
            raise Refused(
                f"this SmartNIC has {how_many} with the serial number {disk.serial} and a namespace "
                f"{disk.namespace_id}",
                code="DiskMissing",
                retryable=True,
                field="spec.source.disk",
            )
        return _unclaimed(found[0])

    def _target_of(self, namespace: NVMeNamespace) -> Target | None:
        remote = namespace.spec.source.remote
        return None if remote is None else self._target(remote)

    def _target(self, remote: RemoteSource) -> Target:
        return Target(remote.address, remote.port, remote.subsystem_nqn, remote.host_nqn or self._host_nqn)


def _unclaimed(space: Space) -> Space:
    """What the NIC itself mounts, or has in a volume group, is not shown to anybody."""
    if space.claims:
        raise Conflict(
            f"{space.device} is in use on this SmartNIC: {', '.join(space.claims)}",
            code="DeviceInUse",
            hint="give it up there first",
        )
    return space
