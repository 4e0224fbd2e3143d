"""What the host hears of the NIC's storage: in the status of the NIC's own object, which is all that it may read."""

from __future__ import annotations

from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, Watch
from carmel.resources.nvmenamespace import NVME_NAMESPACE, NVMeNamespace, NVMeNamespaceState
from carmel.resources.smartnic import (
    SMART_NIC,
    FunctionKind,
    FunctionOwner,
    FunctionState,
    FunctionStatus,
    ShownNamespace,
    SmartNIC,
)
from carmel.smartnic.nvme.functions import NvmeFunctions


class ShownNamespaces:
    """Keeps ``status.namespaces``, and of ``status.functions`` those of NVMe. ``name`` is the NIC's own object's."""

    def __init__(self, runtime: Runtime, name: str, functions: NvmeFunctions) -> None:
        self._key = Key(None, name)
        self._functions = functions
        self._resources: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager="nvme-controller")
        self._namespaces = runtime.resources(NVME_NAMESPACE, NVMeNamespace)
        runtime.add(
            ControllerSpec(
                "nvme-shown",
                SMART_NIC,
                self.reconcile,
                accepts=lambda obj: bool(obj["metadata"]["name"] == name),
                watches=(Watch(NVME_NAMESPACE, lambda _namespace: [self._key]),),
                workers=1,
            )
        )

    async def reconcile(self, key: Key) -> float | None:
        nic = await self._resources.find(key)
        if nic is None:
            return None
        namespaces = sorted(await self._namespaces.list(), key=lambda one: one.metadata.name)
        functions = [_function(one, namespaces) for one in await self._functions.functions()]

        def change(one: SmartNIC) -> None:
            others = [each for each in one.status.functions or [] if each.kind is not FunctionKind.NVME]
            one.status.functions = [*others, *functions] or None
            one.status.namespaces = [shown_namespace(each) for each in namespaces] or None

        await self._resources.update_status(nic, change)
        return None


def shown_namespace(namespace: NVMeNamespace) -> ShownNamespace:
    """Without where its blocks come from, and without the words of errors, which may tell."""
    status = namespace.status
    return ShownNamespace(
        name=namespace.metadata.name,
        state=status.state or NVMeNamespaceState.CONNECTING,
        size_bytes=status.size_bytes,
        owner=namespace.spec.owner,
        function=status.function,
        stall_seconds=namespace.spec.stall_seconds,
    )


def _function(function: FunctionStatus, namespaces: list[NVMeNamespace]) -> FunctionStatus:
    holder = next((one for one in namespaces if function.id in {one.status.function, one.spec.function}), None)
    if holder is None:
        return function
    owner = FunctionOwner(kind="NVMeNamespace", name=holder.metadata.name)
    return function.model_copy(update={"state": FunctionState.PLUGGED, "owner": owner})
