"""Volumes that are whole disks which somebody offers: exports of an NBD server, namespaces of a SmartNIC.

Nothing of theirs is made or removed here, and each is one Volume's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from carmel.controllers.datastore import Datastores
from carmel.controllers.datastore_disks import NbdStore, SmartNicStore
from carmel.errors import CarmelError, Refused
from carmel.resources.volume import Volume
from carmel.run import Runner
from carmel.storage.files import ProcessUser
from carmel.storage.nbd import Key, export_size


class NamespacesOfNics(Protocol):
    """What SmartNICs offer, in the hand of whoever speaks with them."""

    async def prepare(self, smart_nic: str, volume: Volume) -> int:
        """Have a function of the NIC show the volume's namespace. Bytes of it, once the host sees that function.

        Raises ``Refused`` and ``Unavailable`` with what is waited for.
        """
        ...

    async def release(self, smart_nic: str, volume: Volume) -> None:
        """The volume goes: its function shows nothing afterwards. Raises ``CarmelError`` while that is not so."""
        ...


class Exports:
    """``folder`` is where keys lie while a server is asked, by ``user``."""

    def __init__(
        self,
        datastores: Datastores,
        namespaces: NamespacesOfNics,
        runner: Runner,
        folder: Path,
        user: ProcessUser | None,
    ) -> None:
        self._datastores = datastores
        self._namespaces = namespaces
        self._runner = runner
        self._folder = folder
        self._user = user

    async def capacity(self, volume: Volume, others: Iterable[Volume]) -> int:
        """Bytes: what the server says, once. A disk that was seen stays what it was while its server is away.

        Raises ``Refused`` (``ExportInUse``, ``ExportNotOffered``, ``ServerNotTrusted``...) and ``Unavailable``
        (``ServerAway``, ``DatastoreNotReady``).
        """
        assert volume.spec.export is not None
        server = self._datastores.server(volume.spec.datastore_ref.name)
        self._require_alone(volume, others)
        if isinstance(server, SmartNicStore):
            return await self._namespaces.prepare(server.smart_nic, volume)
        address = server.export(volume.spec.export)
        if volume.status.capacity_bytes is not None:
            return volume.status.capacity_bytes
        key = Key(server.psk.username, server.psk.line)
        return await export_size(self._runner, address, key, self._folder, self._user)

    async def release(self, volume: Volume) -> None:
        """Before the volume is gone. A datastore that never came to be has nothing of it."""
        try:
            server = self._datastores.server(volume.spec.datastore_ref.name)
        except CarmelError:
            if volume.status.capacity_bytes is None:
                return
            raise
        if isinstance(server, SmartNicStore):
            await self._namespaces.release(server.smart_nic, volume)

    def _require_alone(self, volume: Volume, others: Iterable[Volume]) -> None:
        """Raises ``Refused`` (``ExportInUse``): who was ready first has it, then who was made first."""
        wanted = self._disk(volume)
        for other in others:
            same = other.metadata.uid != volume.metadata.uid and self._disk(other) == wanted
            if same and _rank(other) < _rank(volume):
                raise Refused(
                    f"the export {volume.spec.export} is the volume {other.metadata.namespace}/{other.metadata.name}",
                    code="ExportInUse",
                    hint="delete that one first, or choose another export",
                    field="spec.export",
                    retryable=True,
                )

    def _disk(self, volume: Volume) -> tuple[str, str | None] | None:
        """What names it, whichever datastore leads there; ``None``: it is none."""
        if volume.spec.export is None:
            return None
        try:
            server = self._datastores.server(volume.spec.datastore_ref.name)
        except CarmelError:
            return volume.spec.datastore_ref.name, volume.spec.export
        if isinstance(server, NbdStore):
            address = server.spec.address
            port = next((one.port for one in server.spec.exports if one.name == volume.spec.export), 0)
            return f"nbd {address} {port}", volume.spec.export
        return f"smartnic {server.smart_nic}", volume.spec.export


def _rank(volume: Volume) -> tuple[bool, str, str]:
    created = volume.metadata.creation_timestamp
    age = created.isoformat() if created is not None else ""
    return (volume.status.capacity_bytes is None, age, volume.metadata.uid or "")
