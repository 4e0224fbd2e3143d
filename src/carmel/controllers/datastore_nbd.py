"""Datastores that are NBD servers: nothing of theirs lies here; what they export is asked for by name."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.controllers.psk import SYSTEM_NAMESPACE, psk_of
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Refused
from carmel.hypervisor.psk import Psk
from carmel.resources.core import SECRET, Secret
from carmel.resources.datastore import NBDDatastore
from carmel.storage.nbd import ExportAddress


@dataclass(frozen=True, slots=True)
class NbdStore:
    """A datastore of type NBD that can be used."""

    spec: NBDDatastore
    psk: Psk

    def export(self, name: str) -> ExportAddress:
        """Raises ``Refused`` (``ExportNotOffered``)."""
        for one in self.spec.exports:
            if one.name == name:
                return ExportAddress(str(self.spec.address), one.port, name)
        raise Refused(
            f"the datastore does not offer an export {name}",
            code="ExportNotOffered",
            hint="it offers " + ", ".join(one.name for one in self.spec.exports),
            field="spec.export",
        )


class NbdStores:
    """Opens them: the server is not asked, for it may be away and its disks be in use all the same."""

    def __init__(self, runtime: Runtime) -> None:
        self._secrets: Resources[Secret] = runtime.resources(SECRET, Secret)

    async def open(self, spec: NBDDatastore) -> NbdStore:
        """Raises ``Refused`` (``NoTLSKey``)."""
        return NbdStore(spec, await self._psk(spec.tls_secret_ref.name))

    async def _psk(self, name: str) -> Psk:
        try:
            return psk_of(await self._secrets.find(Key(SYSTEM_NAMESPACE, name)))
        except ValueError as exc:
            raise Refused(
                f"the Secret {name} in {SYSTEM_NAMESPACE} {exc}",
                code="NoTLSKey",
                hint="the server's administrator has both: a name and a key",
                field="spec.nbd.tlsSecretRef.name",
                retryable=True,
            ) from exc
