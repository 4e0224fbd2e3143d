"""Disks of VMs that are NVMe functions of a SmartNIC: bound to a namespace on the NIC, found here, given to vfio-pci.

A function shows its namespace for as long as the Volume is there, and stays with vfio-pci in between: this host's
kernel has no business with what is on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from carmel.controllers.offload.choosing import UNUSABLE, is_ready, natural
from carmel.controllers.offload.claims import MANAGER
from carmel.controllers.offload.links import Links
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import CarmelError, NotFound, Refused, Unavailable
from carmel.hardware.blocks import Uses, claims
from carmel.hardware.nvme import controller_names, namespace_names
from carmel.hardware.sysroot import Sysroot
from carmel.resources.datastore import DATASTORE, Datastore
from carmel.resources.smartnic import (
    SMART_NIC,
    FunctionKind,
    FunctionOwner,
    FunctionStatus,
    ShownNamespace,
    SmartNIC,
)
from carmel.resources.volume import VOLUME, Volume
from carmel.smartnic.finding import find_again
from carmel.smartnic.hostside import read_host_side
from carmel.smartnic.kinds import NVME_NAMESPACES
from carmel.smartnic.vfio import Functions

_CLASS = "sys/class/nvme"


class FunctionDisks:
    """Fulfils ``volume_export.NamespacesOfNics``. ``root`` is where the kernel's files are."""

    def __init__(
        self, runtime: Runtime, links: Links, functions: Functions, root: Callable[[], Path] = lambda: Path("/")
    ) -> None:
        self._links = links
        self._functions = functions
        self._root = root
        self._nics: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager=MANAGER)
        self._volumes: Resources[Volume] = runtime.resources(VOLUME, Volume)
        self._datastores: Resources[Datastore] = runtime.resources(DATASTORE, Datastore)
        self._one_at_a_time = asyncio.Lock()

    async def prepare(self, smart_nic: str, volume: Volume) -> int:
        async with self._one_at_a_time:
            nic = await self._nic(smart_nic)
            namespace = _namespace(nic, volume)
            if namespace.function is None:
                await self._bind(nic, volume, _free(nic).id)
                raise Unavailable(f"SmartNIC {smart_nic} is asked to show {namespace.name}", code="WaitingForSmartNIC")
            _address(nic, namespace.function)
        if namespace.size_bytes is None:
            raise Unavailable(f"SmartNIC {smart_nic} does not know yet how large it is", code="WaitingForSmartNIC")
        return namespace.size_bytes

    async def give(self, smart_nic: str, volume: Volume, vm: str) -> str:
        """The PCI address of the function, with vfio-pci, for the VM of that name.

        Raises ``Refused`` (``NamespaceOfAnother``, ``FunctionInUse``) and ``Unavailable`` (``WaitingForSmartNIC``).
        """
        nic = await self._nic(smart_nic)
        namespace = _namespace(nic, volume)
        if namespace.owner is None or namespace.owner.name != vm:
            raise _of_another(volume)
        if namespace.function is None:
            raise Unavailable(f"no function shows {namespace.name} any more", code="WaitingForSmartNIC")
        address = _address(nic, namespace.function)
        await asyncio.to_thread(self._require_there, _status_of(nic, namespace.function))
        await asyncio.to_thread(self._require_unused, address, namespace.function)
        await self._functions.bind(address)
        return address

    async def release(self, smart_nic: str, volume: Volume) -> None:
        nic = await self._nics.find(Key(None, smart_nic))
        shown = [one for one in (nic.status.namespaces if nic is not None else None) or [] if _is(one, volume)]
        if nic is None or not shown or shown[0].function is None:
            return
        for function in nic.status.functions or []:
            # Whatever drives it by its status: that may be of before it was given away.
            if function.id == shown[0].function and function.pci_address is not None:
                await self._functions.give_back(function.pci_address)
        await self._bind(nic, volume, None)

    async def owners(self, smart_nic: str) -> dict[str, FunctionOwner]:
        """By function, the volume that has it."""
        nic = await self._nics.find(Key(None, smart_nic))
        namespaces = (nic.status.namespaces if nic is not None else None) or []
        stores = {
            one.metadata.name
            for one in await self._datastores.list()
            if one.spec.smart_nic_ref is not None and one.spec.smart_nic_ref.name == smart_nic
        }
        return {
            one.function: FunctionOwner(kind="Volume", namespace=volume.metadata.namespace, name=volume.metadata.name)
            for volume in (await self._volumes.list() if stores and namespaces else ())
            if volume.spec.datastore_ref.name in stores and volume.status.capacity_bytes is not None
            for one in namespaces
            if one.function is not None and _is(one, volume)
        }

    # -- inside -------------------------------------------------------------------------------------------------
    async def _nic(self, name: str) -> SmartNIC:
        nic = await self._nics.find(Key(None, name))
        if nic is None:
            raise Unavailable(f"there is no SmartNIC {name}", code="WaitingForSmartNIC")
        return nic

    async def _bind(self, nic: SmartNIC, volume: Volume, function: str | None) -> None:
        name = nic.metadata.name
        path = NVME_NAMESPACES.path(None, volume.spec.export or "", "binding")
        try:
            await self._links.get(name).ask(lambda client: client.call("POST", path, body={"function": function}))
        except NotFound:
            if function is not None:
                raise _not_shown(nic, volume) from None
        except Unavailable:
            raise
        except CarmelError as error:
            raise Unavailable(f"SmartNIC {name}: {error.message}", code=error.code, hint=error.hint) from error

    def _require_there(self, function: FunctionStatus) -> None:
        """Another drive may have its address since the host was started anew."""
        now = find_again(function, read_host_side(self._root()))
        if now.state in UNUSABLE:
            raise _not_usable(function.id, now.message)

    def _require_unused(self, address: str, function: str) -> None:
        """The host's kernel lets a driver be taken from under a mounted file system. We do not."""
        root = Sysroot(self._root())
        uses = Uses.read(root)
        for name in controller_names(root):
            if address not in (root.real(f"{_CLASS}/{name}") or "").split("/"):
                continue
            for space in namespace_names(root, f"{_CLASS}/{name}"):
                if held := claims(root, space, uses):
                    raise Refused(
                        f"the function {function} is in use on this host: {space} is {', '.join(held)}",
                        code="FunctionInUse",
                        hint="a namespace is a VM's or the host's, not both",
                        retryable=True,
                    )


def _is(namespace: ShownNamespace, volume: Volume) -> bool:
    return namespace.name == volume.spec.export


def _namespace(nic: SmartNIC, volume: Volume) -> ShownNamespace:
    """Which VM may have it, the NIC's administrators said: others are told no more than that it is not for them."""
    found = next((one for one in nic.status.namespaces or [] if _is(one, volume)), None)
    if found is None:
        raise _not_shown(nic, volume)
    if found.owner is None or found.owner.namespace != volume.metadata.namespace:
        raise _of_another(volume)
    return found


def _free(nic: SmartNIC) -> FunctionStatus:
    if not is_ready(nic):
        raise Unavailable(f"SmartNIC {nic.metadata.name} is not ready", code="WaitingForSmartNIC")
    shown = {one.function for one in nic.status.namespaces or []}
    nvme = [one for one in nic.status.functions or [] if one.kind is FunctionKind.NVME]
    free = [one for one in nvme if one.id not in shown and one.owner is None]
    # One that the host sees already is best; others may be plugged in when they show something.
    free.sort(key=lambda one: (one.state in UNUSABLE, natural(one.id)))
    if not free:
        raise Unavailable(
            f"SmartNIC {nic.metadata.name} has no free NVMe function: "
            + (f"all {len(nvme)} are in use" if nvme else "it shows none"),
            code="NoFreeFunction",
        )
    return free[0]


def _address(nic: SmartNIC, function: str) -> str:
    found = _status_of(nic, function)
    if found.pci_address is None or found.state in UNUSABLE:
        raise _not_usable(function, found.message)
    return found.pci_address


def _status_of(nic: SmartNIC, function: str) -> FunctionStatus:
    found: Sequence[FunctionStatus] = [one for one in nic.status.functions or [] if one.id == function]
    if not found:
        raise _not_usable(function, None)
    return found[0]


def _not_usable(function: str, why: str | None) -> Unavailable:
    said = f": {why}" if why else ""
    return Unavailable(f"this host cannot use the function {function} yet{said}", code="WaitingForFunction")


def _not_shown(nic: SmartNIC, volume: Volume) -> Unavailable:
    return Unavailable(
        f"SmartNIC {nic.metadata.name} offers no namespace {volume.spec.export}",
        code="ExportNotOffered",
        hint="its administrators make NVMeNamespaces on it",
    )


def _of_another(volume: Volume) -> Refused:
    return Refused(
        f"the namespace {volume.spec.export} is not for this VM",
        code="NamespaceOfAnother",
        hint="on the SmartNIC, spec.owner of its NVMeNamespace names the VM that may have it",
        field="spec.export",
        retryable=True,
    )
