"""Volumes that are exports of an NBD server: nothing of theirs is made or removed here, and each is one Volume's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from carmel.controllers.datastore import Datastores
from carmel.errors import Refused
from carmel.resources.volume import Volume
from carmel.run import Runner
from carmel.storage.files import ProcessUser
from carmel.storage.nbd import Key, export_size


class Exports:
    """``folder`` is where keys lie while a server is asked, by ``user``."""

    def __init__(self, datastores: Datastores, runner: Runner, folder: Path, user: ProcessUser | None) -> None:
        self._datastores = datastores
        self._runner = runner
        self._folder = folder
        self._user = user

    async def capacity(self, volume: Volume, others: Iterable[Volume]) -> int:
        """Bytes: what the server says, once. A disk that was seen stays what it was while its server is away.

        Raises ``Refused`` (``ExportInUse``, ``ExportNotOffered``, ``ServerNotTrusted``...) and ``Unavailable``
        (``ServerAway``, ``DatastoreNotReady``).
        """
        assert volume.spec.export is not None
        require_alone(volume, others)
        server = self._datastores.server(volume.spec.datastore_ref.name)
        address = server.export(volume.spec.export)
        if volume.status.capacity_bytes is not None:
            return volume.status.capacity_bytes
        key = Key(server.psk.username, server.psk.line)
        return await export_size(self._runner, address, key, self._folder, self._user)


def require_alone(volume: Volume, others: Iterable[Volume]) -> None:
    """Raises ``Refused`` (``ExportInUse``): who was ready first has it, then who was made first."""
    for other in others:
        same = (other.spec.datastore_ref, other.spec.export) == (volume.spec.datastore_ref, volume.spec.export)
        if same and other.metadata.uid != volume.metadata.uid and _rank(other) < _rank(volume):
            raise Refused(
                f"the export {volume.spec.export} is the volume {other.metadata.namespace}/{other.metadata.name}",
                code="ExportInUse",
                hint="delete that one first, or choose another export",
                field="spec.export",
                retryable=True,
            )


def _rank(volume: Volume) -> tuple[bool, str, str]:
    created = volume.metadata.creation_timestamp
    age = created.isoformat() if created is not None else ""
    return (volume.status.capacity_bytes is None, age, volume.metadata.uid or "")
