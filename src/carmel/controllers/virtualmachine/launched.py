"""What a VM was last started from, in a file beside its launch record.

Written, durably, before QEMU is started; so what runs is never unknown, whenever the daemon is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import orjson
from pydantic import ValidationError

from carmel.controllers.placement import recorded as records
from carmel.controllers.placement.recorded import Recorded
from carmel.controllers.virtualmachine.observed import Launched
from carmel.errors import InsufficientStorage
from carmel.hypervisor.files import write_atomically
from carmel.paths import Paths
from carmel.resources.virtualmachine import NetworkInterfaceStatus, VirtualMachineSpec


class LaunchedSpecs:
    """One file a VM. What was read once is remembered: nobody else writes them."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[str, Launched | None] = {}

    async def get(self, uid: str) -> Launched | None:
        if uid not in self._known:
            self._known[uid] = await asyncio.to_thread(self._read, uid)
        return self._known[uid]

    async def put(self, uid: str, launched: Launched) -> None:
        """Raises ``InsufficientStorage`` when it cannot be written; then what was written before counts."""
        try:
            await asyncio.to_thread(self._write, uid, launched)
        except OSError as error:
            place = self._paths.machine(uid).launched_spec
            raise InsufficientStorage(
                f"{place} cannot be written: {error.strerror}",
                code="StateNotWritable",
                hint="make room in the state directory",
            ) from error
        self._known[uid] = launched

    async def change(self, uid: str, changed: Callable[[Launched], Launched]) -> None:
        """Of a VM of which nothing is known, nothing is changed. Raises as ``put`` does."""
        launched = await self.get(uid)
        if launched is not None:
            await self.put(uid, changed(launched))

    async def recorded(self, uid: str) -> Recorded | None:
        launched = await self.get(uid)
        return launched.place if launched is not None else None

    async def record(self, uid: str, recorded: Recorded) -> None:
        await self.change(uid, lambda launched: replace(launched, place=recorded))

    def forget(self, uid: str) -> None:
        """The file goes with the VM's directory."""
        self._known.pop(uid, None)

    def _read(self, uid: str) -> Launched | None:
        try:
            data = orjson.loads(self._paths.machine(uid).launched_spec.read_bytes())
            return Launched(
                spec=VirtualMachineSpec.model_validate(data["spec"]),
                boot_id=str(data["bootID"]),
                networks=tuple(NetworkInterfaceStatus.model_validate(one) for one in data["networks"]),
                place=records.from_json(data.get("place")),
            )
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            # Without it a VM runs on all the same; only what changed since its start cannot be told.
            return None

    def _write(self, uid: str, launched: Launched) -> None:
        document = {
            "spec": launched.spec.to_json(),
            "bootID": launched.boot_id,
            "networks": [one.to_json() for one in launched.networks],
            "place": records.to_json(launched.place) if launched.place is not None else None,
        }
        place = self._paths.machine(uid).launched_spec
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        write_atomically(place, orjson.dumps(document))
