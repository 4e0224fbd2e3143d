"""NVMeNamespaces on a SmartNIC: each pass sees to the path, then to the function, then says how it is.

A path that goes away is the kernel's to bring back; what the host asks for waits meanwhile in the kernel, and an
exporter that is there is left alone. One that is not there is started when the path is back: it could not even open
its device before.
"""

from __future__ import annotations

from pathlib import Path

from carmel.controllers.nic.nvme.alone import require_alone
from carmel.controllers.nic.nvme.blockpaths import BlockPath, BlockPaths
from carmel.controllers.nic.nvme.filling import Fillings
from carmel.controllers.runtime import (
    Backoff,
    ControllerSpec,
    EventKind,
    Key,
    Resources,
    Runtime,
    Watch,
    condition,
    error_message,
    set_conditions,
)
from carmel.errors import CarmelError, Conflict
from carmel.hardware.nvme_lookup import Space
from carmel.resources.base import JsonObject
from carmel.resources.image import IMAGE
from carmel.resources.nvmenamespace import (
    NVME_NAMESPACE,
    ImageReference,
    NVMeContent,
    NVMeLimits,
    NVMeNamespace,
    NVMeNamespaceState,
)
from carmel.smartnic.nvme.functions import Limits, NvmeFunctions, Show

FINALIZER = "carmel.dev/nvmenamespace"
_MB = 1_000_000
_LOOK_SECONDS = 5.0
_FILL_SECONDS = 1.0
_GOOD = frozenset({NVMeNamespaceState.ONLINE, NVMeNamespaceState.FILLING})
_BY_UID, _BY_IMAGE = "uid", "image"
_CONNECTING = frozenset({"PathAway", "ExporterNotReady", "AddressMissing", "ImageMissing", "ImageNotReady"})


class NvmeNamespaceController:
    """Build it before the runtime starts, and ``adopt`` before that, too."""

    def __init__(self, runtime: Runtime, functions: NvmeFunctions, paths: BlockPaths, fillings: Fillings) -> None:
        self._runtime = runtime
        self._functions = functions
        self._paths = paths
        self._fillings = fillings
        self._resources: Resources[NVMeNamespace] = runtime.resources(
            NVME_NAMESPACE, NVMeNamespace, manager="nvme-controller"
        )
        self._informer = runtime.informer(NVME_NAMESPACE)
        self._informer.add_index(_BY_UID, lambda one: [one["metadata"]["uid"]])
        self._informer.add_index(_BY_IMAGE, _image_of)
        self._controller = runtime.add(
            ControllerSpec(
                "nvme",
                NVME_NAMESPACE,
                self.reconcile,
                watches=(Watch(IMAGE, self._begin_with),),
                # A path that is back is to be used soon, however long it was away.
                backoff=Backoff(maximum=2 * _LOOK_SECONDS),
                retry_permanent_seconds=_LOOK_SECONDS,
                on_failure=self._failed,
            )
        )

    async def adopt(self) -> None:
        """What earlier daemons showed goes on, but for what is no more."""
        await self._functions.adopt([one.metadata.uid or "" for one in await self._resources.list()])

    def ended(self, uid: str) -> None:
        """What showed it, or what was copied onto it, ended by itself."""
        for key in self._informer.indexed(_BY_UID, uid):
            self._controller.enqueue(key)

    async def reconcile(self, key: Key) -> float | None:
        namespace = await self._resources.find(key)
        if namespace is None:
            return None
        others = [one for one in await self._resources.list() if one.metadata.uid != namespace.metadata.uid]
        if namespace.metadata.deletion_timestamp is not None:
            return await self._delete(namespace, others)
        namespace = await self._resources.add_finalizer(namespace, FINALIZER)
        uid = namespace.metadata.uid or ""
        try:
            require_alone(namespace, others)
        except Conflict:
            await self._functions.hide(uid)
            raise
        path = await self._paths.ensure(namespace, others)
        reachable = path.space if path.away_seconds is None else None
        if reachable is not None and _to_be_filled(namespace):
            namespace = await self._fill(namespace, reachable)
        if _to_be_filled(namespace):
            await self._tell(namespace, path)
            return _FILL_SECONDS
        if namespace.spec.function is None:
            await self._functions.hide(uid)
        elif path.space is not None and path.away_seconds is None:
            await self._show(namespace, path)
        await self._tell(namespace, path)
        return _LOOK_SECONDS

    async def _fill(self, namespace: NVMeNamespace, space: Space) -> NVMeNamespace:
        """Begin the copy, or see how it goes. Before a block is written the status says so: half a copy, after a power
        cut, is nobody's data."""
        uid, reference = namespace.metadata.uid or "", namespace.spec.image_ref
        assert reference is not None, "only one that is to be filled comes here"
        if self._fillings.outcome(uid):
            return await self._tell_content(namespace, complete=True)
        if self._fillings.progress(uid) is not None:
            return namespace
        image = await self._fillings.image(reference)
        await self._fillings.require_fit(image, space, begun=namespace.status.content is not None)
        content = NVMeContent(image_uid=image.metadata.uid or "", digest=image.status.digest)
        namespace = await self._tell_content(namespace, content)
        self._fillings.begin(uid, image, space, self.ended)
        return namespace

    async def _tell_content(
        self, namespace: NVMeNamespace, content: NVMeContent | None = None, *, complete: bool = False
    ) -> NVMeNamespace:
        def change(one: NVMeNamespace) -> None:
            one.status.content = content or one.status.content
            if one.status.content is not None:
                one.status.content.complete = complete

        return await self._resources.update_status(namespace, change)

    def _begin_with(self, image: JsonObject) -> list[Key]:
        meta = image["metadata"]
        return list(self._informer.indexed(_BY_IMAGE, f"{meta['namespace']}/{meta['name']}"))

    async def _show(self, namespace: NVMeNamespace, path: BlockPath) -> None:
        assert path.space is not None
        await self._functions.show(
            Show(
                uid=namespace.metadata.uid or "",
                function=namespace.spec.function or "",
                device=Path(path.space.device),
                block_bytes=path.space.block_bytes,
                limits=limits_of(namespace.spec.limits),
            )
        )

    async def _delete(self, namespace: NVMeNamespace, others: list[NVMeNamespace]) -> float | None:
        """Not while a function is bound to it: whoever has it mounted, or boots from it, would lose it."""
        if namespace.spec.function is not None:
            blocked = condition(
                "Deletable", "False", "NamespaceInUse", f"{namespace.spec.function} is bound to it: unbind that first"
            )
            now = self._runtime.clock.now()
            await self._resources.update_status(namespace, lambda one: set_conditions(one.status, [blocked], now))
            return _LOOK_SECONDS
        await self._fillings.stop(namespace.metadata.uid or "")
        await self._functions.hide(namespace.metadata.uid or "")
        await self._paths.release(namespace, others)
        await self._resources.remove_finalizer(namespace, FINALIZER)
        return None

    # -- status -------------------------------------------------------------------------------------------------
    async def _tell(self, namespace: NVMeNamespace, path: BlockPath) -> None:
        state, message = state_of(path, namespace.spec.stall_seconds), path.message
        if state is NVMeNamespaceState.ONLINE and _to_be_filled(namespace):
            state = NVMeNamespaceState.FILLING
            message = f"its image is being copied: {self._fillings.progress(namespace.metadata.uid or '') or 0} %"
        shown = await self._functions.shown(namespace.metadata.uid or "")
        before = namespace.status.state

        def change(one: NVMeNamespace) -> None:
            status, generation = one.status, one.metadata.generation
            status.observed_generation = generation
            status.state = state
            status.function = shown
            if path.space is not None:
                status.size_bytes, status.block_bytes = path.space.size_bytes, path.space.block_bytes
                status.device = path.space.device
            ok = state is NVMeNamespaceState.ONLINE
            ready = condition("Ready", "True" if ok else "False", state.value, message, generation=generation)
            set_conditions(status, [ready], self._runtime.clock.now())

        told = await self._resources.update_status(namespace, change)
        if before is not None and before is not state:
            kind = EventKind.NORMAL if state in _GOOD else EventKind.WARNING
            self._runtime.events.record(NVME_NAMESPACE, told, kind, state.value, message or "it can be reached")

    async def _failed(self, key: Key, error: CarmelError, _count: int) -> None:
        namespace = await self._resources.find(key)
        if namespace is None:
            return
        shown = await self._functions.shown(namespace.metadata.uid or "")

        def change(one: NVMeNamespace) -> None:
            status, generation = one.status, one.metadata.generation
            waits = error.code in _CONNECTING
            status.state = NVMeNamespaceState.CONNECTING if waits else NVMeNamespaceState.FAILED
            status.function = shown
            ready = condition("Ready", "False", error.code, error_message(error), generation=generation)
            set_conditions(status, [ready], self._runtime.clock.now())

        told = await self._resources.update_status(namespace, change)
        self._runtime.events.record(NVME_NAMESPACE, told, EventKind.WARNING, error.code, error_message(error))


def _image_of(namespace: JsonObject) -> list[str]:
    reference = namespace["spec"].get("imageRef")
    if reference is None:
        return []
    return [f"{reference.get('namespace', ImageReference.model_fields['namespace'].default)}/{reference['name']}"]


def _to_be_filled(namespace: NVMeNamespace) -> bool:
    content = namespace.status.content
    return namespace.spec.image_ref is not None and (content is None or not content.complete)


def state_of(path: BlockPath, stall_seconds: int) -> NVMeNamespaceState:
    if path.away_seconds is not None:
        over = path.away_seconds > stall_seconds
        return NVMeNamespaceState.FAILED if over else NVMeNamespaceState.STALLED
    return NVMeNamespaceState.CONNECTING if path.space is None else NVMeNamespaceState.ONLINE


def limits_of(wanted: NVMeLimits | None) -> Limits:
    if wanted is None:
        return Limits()
    return Limits(
        wanted.iops,
        None if wanted.read_mbps is None else wanted.read_mbps * _MB,
        None if wanted.write_mbps is None else wanted.write_mbps * _MB,
    )
