"""Datastores that offer whole disks, by name: NBD servers and SmartNICs. Nothing of theirs lies here."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.controllers.psk import SYSTEM_NAMESPACE, psk_of
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Refused
from carmel.hypervisor.psk import Psk
from carmel.resources.core import SECRET, Secret
from carmel.resources.datastore import DatastoreSpec, NBDDatastore
from carmel.resources.smartnic import SMART_NIC, SmartNIC
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


@dataclass(frozen=True, slots=True)
class SmartNicStore:
    """A datastore of type SmartNIC: what it offers stands in the status of that SmartNIC."""

    smart_nic: str


DiskServer = NbdStore | SmartNicStore


class DiskServers:
    """Opens them: a server is not asked, for it may be away and its disks be in use all the same."""

    def __init__(self, runtime: Runtime) -> None:
        self._secrets: Resources[Secret] = runtime.resources(SECRET, Secret)
        self._smart_nics: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC)

    async def open(self, spec: DatastoreSpec) -> DiskServer:
        """Raises ``Refused`` (``NoTLSKey``, ``NoSmartNIC``)."""
        if spec.nbd is not None:
            return NbdStore(spec.nbd, await self._psk(spec.nbd.tls_secret_ref.name))
        assert spec.smart_nic_ref is not None, "admission asks for one of the two"
        name = spec.smart_nic_ref.name
        if await self._smart_nics.find(Key(None, name)) is None:
            raise Refused(
                f"there is no SmartNIC {name}", code="NoSmartNIC", field="spec.smartNICRef.name", retryable=True
            )
        return SmartNicStore(name)

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
