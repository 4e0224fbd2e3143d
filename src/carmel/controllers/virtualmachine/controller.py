"""The controller of VirtualMachines: look, plan, act, look again; then say in the status what is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from carmel.cancellation import end_tasks
from carmel.controllers.placement import Places
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, Watch, key_of, sleep
from carmel.controllers.runtime.informer import Change
from carmel.controllers.virtualmachine import ports as protocols
from carmel.controllers.virtualmachine.acting import Actor
from carmel.controllers.virtualmachine.guests import Guests
from carmel.controllers.virtualmachine.hotplug import HotPlug
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.launching import Launcher
from carmel.controllers.virtualmachine.livedisks import PluggableDisks
from carmel.controllers.virtualmachine.livenics import PluggableNics
from carmel.controllers.virtualmachine.machineports import PortsOfMachines, concerns_vm
from carmel.controllers.virtualmachine.observed import FINALIZER, HOST_LABEL, HostLimits, Observed
from carmel.controllers.virtualmachine.observing import Observer, Reader
from carmel.controllers.virtualmachine.planning import make_plan
from carmel.controllers.virtualmachine.status import write_status
from carmel.controllers.virtualmachine.steps import Plan, Step
from carmel.controllers.virtualmachine.volumes import VolumesOfMachines
from carmel.errors import CarmelError, NotFound
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Hypervisor
from carmel.paths import Paths
from carmel.placement.requests import request_of
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET, Secret
from carmel.resources.host import HOST, Host
from carmel.resources.image import IMAGE, Image
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, Port
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine
from carmel.resources.volume import VOLUME, Volume

_log = logging.getLogger(__name__)

NAME = "virtualmachine-controller"
AGENT_CHANGED = "guest agent"
"""What a change of a machine says when the guest opened or closed its agent's channel."""
MOST_ROUNDS = 16
"""Rounds of look, plan, act in one pass: far more than any way from any state to any other takes."""
SETTLE_SECONDS = 0.5
"""A step was done and its effect is not seen yet: the change is told, and this is how long nobody waits for that."""
_BY_UID, _BY_REFERENCE, _BY_OWNER = "uid", "reference", "owner"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the controller works with, beside the runtime. ``limits`` says what one VM may have here."""

    hypervisor: Hypervisor
    disks: protocols.Disks
    nics: protocols.Nics
    seeds: protocols.Seeds
    paths: Paths
    boot_id: str
    launched: LaunchedSpecs
    places: Places
    limits: Callable[[], HostLimits] = field(default=HostLimits)
    lost_nics: protocols.LostNics = protocols.none_lost


class VirtualMachineController:
    """Build it before the runtime starts; ``start`` after it, ``stop`` before it stops."""

    def __init__(self, runtime: Runtime, dependencies: Dependencies) -> None:
        self._clock = runtime.clock
        self._hypervisor = dependencies.hypervisor
        self._launched = dependencies.launched
        self._nics = dependencies.nics
        self._places = dependencies.places
        self._places.ledger.listen(self)
        self._store = runtime.store
        self._host = runtime.host
        self._vms = runtime.resources(VIRTUAL_MACHINE, VirtualMachine, manager=NAME)
        self._informer = runtime.informer(VIRTUAL_MACHINE)
        self._informer.add_index(_BY_UID, lambda vm: [vm["metadata"]["uid"]])
        self._informer.add_index(_BY_REFERENCE, references)
        ports = runtime.informer(PORT)
        ports.add_index(_BY_OWNER, lambda port: [port["spec"]["owner"]])
        ports.listen(self._port_changed)
        self._guests = Guests(self._clock, self._enqueue_uid)
        self._observer, self._actor = _build(runtime, dependencies, self._vms, self._guests)
        self._listener: asyncio.Task[None] | None = None
        self._controller = runtime.add(
            ControllerSpec(
                name=NAME,
                kind=VIRTUAL_MACHINE,
                reconcile=self.reconcile,
                watches=tuple(Watch(kind, self._referring(kind)) for kind in (VOLUME, IMAGE, NETWORK, SECRET)),
                accepts=lambda vm: self._is_mine(vm["metadata"].get("labels")),
                workers=8,
                on_failure=runtime.show_failure(self._vms),
                retry_permanent_seconds=60.0,
            )
        )
        self._schedulable: bool | None = None
        runtime.informer(HOST).listen(lambda _change: self._host_changed(runtime))

    async def restore_places(self) -> None:
        """The VMs that run have their places. To be called when machines were adopted, before the runtime starts."""
        for stored in (await self._store.list(VIRTUAL_MACHINE)).items:
            if self._hypervisor.machine(stored.uid) is not None:
                vm = self._vms.parse(stored)
                launched = await self._launched.get(stored.uid)
                was = vm.model_copy(update={"spec": launched.spec}) if launched is not None else vm
                await self._places.restore(request_of(was, frozenset()))

    async def start(self) -> None:
        self._listener = asyncio.create_task(self._listen(), name="changes of machines")

    async def stop(self) -> None:
        await end_tasks(self._listener)
        await self._guests.close()

    async def reconcile(self, key: Key) -> float | None:
        """One pass over one VM."""
        done: tuple[Step, ...] = ()
        for _ in range(MOST_ROUNDS):
            vm = await self._vms.find(key)
            if vm is None or not self._is_mine(vm.metadata.labels):
                return None
            uid = vm.metadata.uid or ""
            machine = self._hypervisor.machine(uid)
            if machine is not None:
                self._places.follow(vm, machine)
            observed = await self._observer.observe(vm)
            plan = make_plan(observed)
            if observed.machine is None:
                await self._nics.release(uid)
                if not plan.wants_place:
                    self._places.leave(uid)
            if not plan.steps:
                await self._show(observed, plan)
                return plan.look_again
            if plan.steps == done:
                return SETTLE_SECONDS
            for step in plan.steps:
                _log.debug("%s: %s", key, step)
                await self._actor.do(step, observed)
            done = plan.steps
        _log.error("%s: after %d rounds there is still something to do", key, MOST_ROUNDS)
        return 1.0

    async def _show(self, observed: Observed, plan: Plan) -> None:
        if observed.vm.metadata.deletion_timestamp and FINALIZER not in (observed.vm.metadata.finalizers or []):
            return
        with contextlib.suppress(NotFound):
            await self._vms.update_status(observed.vm, lambda vm: write_status(vm, observed, plan.ready))

    def _is_mine(self, labels: dict[str, str] | None) -> bool:
        """This host's, or nobody's yet."""
        return (labels or {}).get(HOST_LABEL) in {None, self._host}

    # -- what the ledger tells ----------------------------------------------------------------------------------
    def look(self, uid: str) -> None:
        self._enqueue_uid(uid)

    def try_again(self, uid: str) -> None:
        """What the VM waited for may be there now, a NIC or disk that is to be plugged too."""
        self._observer.try_again(uid)
        self._enqueue_uid(uid)

    def changed(self) -> None:
        """Who waits for room is told by ``look``."""

    def refused(self) -> None:
        """It was this controller that asked."""

    # -- where keys come from -----------------------------------------------------------------------------------
    def _referring(self, kind: Kind) -> Callable[[JsonObject], list[Key]]:
        def keys(obj: JsonObject) -> list[Key]:
            metadata = obj["metadata"]
            return self._informer.indexed(_BY_REFERENCE, _reference(kind, metadata.get("namespace"), metadata["name"]))

        return keys

    def _port_changed(self, change: Change) -> None:
        if concerns_vm(change):
            self._controller.enqueue(Key(change.key.namespace, change.states[-1]["spec"]["vmRef"]["name"]))

    def _enqueue_uid(self, uid: str) -> None:
        for key in self._informer.indexed(_BY_UID, uid):
            self._controller.enqueue(key)

    def _host_changed(self, runtime: Runtime) -> None:
        stored = runtime.informer(HOST).get(Key(None, self._host))
        schedulable = stored is None or not (stored.json().get("spec") or {}).get("unschedulable")
        if schedulable != self._schedulable:
            self._schedulable = schedulable
            for vm in self._informer:
                self._controller.enqueue(key_of(vm))

    async def _listen(self) -> None:
        """Changes of machines become keys; after an interruption every VM is looked at."""
        while True:
            try:
                async with self._hypervisor.changes() as changes:
                    for stored in self._informer:
                        self._controller.enqueue(key_of(stored))
                    async for change in changes:
                        if change.what == AGENT_CHANGED:
                            self._guests.look(change.uid)
                        # A start that failed tells of its end too: that is no reason to try it again at once.
                        if self._hypervisor.machine(change.uid) is not None:
                            self._enqueue_uid(change.uid)
            except CarmelError as error:
                _log.warning("changes of machines are not told at the moment: %s", error)
            await sleep(self._clock, 1.0)


def references(vm: JsonObject) -> Iterator[str]:
    """What a VM depends on, as index values."""
    metadata, spec = vm["metadata"], vm.get("spec") or {}
    namespace = metadata.get("namespace")
    for disk in spec.get("disks") or []:
        name = (disk.get("volumeRef") or {}).get("name") or f"{metadata['name']}-{disk['name']}"
        yield _reference(VOLUME, namespace, name)
    image = ((spec.get("firmware") or {}).get("imageRef") or {}).get("name")
    if image:
        yield _reference(IMAGE, namespace, image)
    for nic in spec.get("networks") or []:
        yield _reference(NETWORK, None, (nic.get("networkRef") or {}).get("name") or "default")
    cloud_init = spec.get("cloudInit") or {}
    for field_name in ("userDataSecretRef", "networkDataSecretRef"):
        if reference := cloud_init.get(field_name):
            yield _reference(SECRET, namespace, reference["name"])


def _reference(kind: Kind, namespace: str | None, name: str) -> str:
    return f"{kind.plural}/{namespace or ''}/{name}"


def _build(
    runtime: Runtime, dependencies: Dependencies, vms: Resources[VirtualMachine], guests: Guests
) -> tuple[Observer, Actor]:
    volumes = runtime.resources(VOLUME, Volume, manager=NAME)
    ports = runtime.resources(PORT, Port, manager=NAME)
    reader = Reader(
        vms=vms,
        volumes=volumes,
        images=runtime.resources(IMAGE, Image),
        networks=runtime.resources(NETWORK, Network),
        secrets=runtime.resources(SECRET, Secret),
        hosts=runtime.resources(HOST, Host),
        ports=ports,
        ports_of=lambda uid: runtime.informer(PORT).indexed(_BY_OWNER, uid),
    )
    observer = Observer(
        reader=reader,
        hypervisor=dependencies.hypervisor,
        paths=dependencies.paths,
        clock=runtime.clock,
        guests=guests,
        launched=dependencies.launched,
        places=dependencies.places,
        host_name=runtime.host,
        boot_id=dependencies.boot_id,
        limits=dependencies.limits,
        lost_nics=dependencies.lost_nics,
    )
    launcher = Launcher(
        reader=reader,
        hypervisor=dependencies.hypervisor,
        paths=dependencies.paths,
        launched=dependencies.launched,
        places=dependencies.places,
        disks=dependencies.disks,
        nics=dependencies.nics,
        seeds=dependencies.seeds,
    )
    actor = Actor(
        vms=vms,
        volumes=VolumesOfMachines(volumes),
        ports=PortsOfMachines(runtime.store, ports),
        hypervisor=dependencies.hypervisor,
        launcher=launcher,
        hot_plug=HotPlug(
            dependencies.launched,
            {
                DeviceKind.NIC: PluggableNics(dependencies.nics, dependencies.paths),
                DeviceKind.DISK: PluggableDisks(launcher.disk),
            },
        ),
        launched=dependencies.launched,
        observer=observer,
        places=dependencies.places,
        events=runtime.events,
        paths=dependencies.paths,
    )
    return observer, actor
