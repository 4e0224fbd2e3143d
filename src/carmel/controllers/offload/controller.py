"""SmartNICs as the host has them: each is linked, its functions are found here, and its status says what is so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from carmel.controllers.offload.claims import MANAGER, Claims
from carmel.controllers.offload.disks import FunctionDisks
from carmel.controllers.offload.links import Links
from carmel.controllers.offload.nics import FunctionNics
from carmel.controllers.offload.relays import Relays
from carmel.controllers.offload.telling import tell, verdict, with_disks, with_owners
from carmel.controllers.runtime import (
    ControllerSpec,
    Key,
    Resources,
    Runtime,
    Watch,
    condition,
    error_message,
    find_condition,
    key_of,
    set_conditions,
)
from carmel.errors import CarmelError, Refused
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET, Secret
from carmel.resources.smartnic import SMART_NIC, FunctionState, FunctionStatus, SmartNIC
from carmel.smartnic.credentials import endpoint_of
from carmel.smartnic.finding import VFIO, find_functions
from carmel.smartnic.hostside import ReadHost
from carmel.smartnic.link import NicView
from carmel.smartnic.vfio import Functions

_log = logging.getLogger(__name__)

FINALIZER = "carmel.dev/smartnic"
NAMESPACE = "carmel-system"
"""Where the Secrets lie that the host is known by."""
_GATHER_SECONDS = 0.05
"""A NIC that starts says many things in a row."""
_OWED_SECONDS = 5.0
"""The NIC could not be told that a function is free again, though it seems to be there."""
_MISSING_SECONDS = 60.0
"""A function that the NIC tells of and the host does not see is looked for when the kernel says that something came;
where it cannot be heard, this often."""


class SmartNICController:
    """``wake`` is told uids of VMs that waited for what may be there now."""

    def __init__(
        self,
        runtime: Runtime,
        links: Links,
        claims: Claims,
        nics: FunctionNics,
        disks: FunctionDisks,
        functions: Functions,
        read_host: ReadHost,
        relays: Relays,
        wake: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._links = links
        self._claims = claims
        self._nics = nics
        self._disks = disks
        self._functions = functions
        self._read_host = read_host
        self._relays = relays
        self._wake = wake
        self._resources: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager=MANAGER)
        self._secrets: Resources[Secret] = runtime.resources(SECRET, Secret)
        self._informer = runtime.informer(SMART_NIC)
        self._controller = runtime.add(
            ControllerSpec(
                name=MANAGER,
                kind=SMART_NIC,
                reconcile=self.reconcile,
                watches=(Watch(SECRET, self._with_secret),),
                workers=2,
                on_failure=runtime.show_failure(self._resources),
                retry_permanent_seconds=60.0,
            )
        )
        links.listen_for_gist(self._look)
        claims.listen(self._look)

    def host_changed(self) -> None:
        """PCI functions, or what is made of them, came, went, or changed their drivers."""
        for stored in self._informer:
            self._controller.enqueue_after(key_of(stored), _GATHER_SECONDS)

    async def reconcile(self, key: Key) -> float | None:
        smart_nic = await self._resources.find(key)
        if smart_nic is None:
            await self._drop(key.name)
            return None
        if smart_nic.metadata.deletion_timestamp is not None:
            return await self._delete(smart_nic)
        smart_nic = await self._resources.add_finalizer(smart_nic, FINALIZER)
        smart_nic = await self._relay(smart_nic)
        view = await self._view(smart_nic)
        if view.connecting and find_condition(smart_nic.status, "Ready") is not None:
            # What an earlier daemon saw is truer than that this one has seen nothing yet.
            return None
        wrong = verdict(smart_nic, view, await self._resources.list())
        found = await self._find(smart_nic, view, wrong)
        smart_nic = await self._tell(smart_nic, view, found, wrong)
        if wrong is None:
            await self._nics.settle(key.name)
        self._wake_machines()
        for uid in await self._nics.software.to_look_at():
            self._wake(uid)
        if wrong is not None:
            return None
        if self._nics.owes(key.name):
            return _OWED_SECONDS
        return _MISSING_SECONDS if any(one.state is FunctionState.MISSING for one in found) else None

    async def _relay(self, smart_nic: SmartNIC) -> SmartNIC:
        """There whenever it is known where the NIC answers: it may be just what its administrators need to mend it."""
        name, spec = smart_nic.metadata.name, smart_nic.spec
        url: str | None = None
        try:
            if spec.address is None:
                await self._relays.drop(name)
                shown = condition("RelayReady", "False", "NoAddress")
            else:
                url = await self._relays.ensure(name, spec.address, spec.relay_port, smart_nic.status.relay)
                shown = condition("RelayReady", "True", "Listening", f"{url} leads to {spec.address}")
        except CarmelError as error:
            shown = condition("RelayReady", "False", error.code, error_message(error))

        def change(one: SmartNIC) -> None:
            one.status.relay = url
            set_conditions(one.status, [shown], self._runtime.clock.now())

        return await self._resources.update_status(smart_nic, change)

    async def _drop(self, name: str) -> None:
        await self._links.drop(name)
        await self._relays.drop(name)

    # -- what is so ---------------------------------------------------------------------------------------------
    async def _view(self, smart_nic: SmartNIC) -> NicView:
        spec, name = smart_nic.spec, smart_nic.metadata.name
        try:
            if spec.address is None:
                raise Refused(
                    f"SmartNIC {name} has no spec.address", code="NoAddress", hint="say where the NIC answers"
                )
            if spec.credentials_secret_ref is None:
                raise Refused(
                    f"SmartNIC {name} has no spec.credentialsSecretRef",
                    code="WaitingForSecret",
                    hint="on the NIC `carmel smartnic invite --host NAME` makes one",
                )
            secret_name = spec.credentials_secret_ref.name
            secret = await self._secrets.find(Key(NAMESPACE, secret_name))
            endpoint = endpoint_of(spec.address, secret_name, secret.data or {} if secret is not None else None)
        except CarmelError as error:
            await self._links.drop(name)
            return NicView(error=error)
        return (await self._links.ensure(name, endpoint)).view

    async def _find(self, smart_nic: SmartNIC, view: NicView, wrong: CarmelError | None) -> Sequence[FunctionStatus]:
        """The functions, found afresh; those of before while the NIC is away or is not the one that it was."""
        before = smart_nic.status.functions or []
        if view.facts is None or wrong is not None:
            plain = before
        else:
            host = await asyncio.to_thread(self._read_host)
            plain = list(find_functions(view.facts.functions, host, before))
        freed = [one.model_copy(update={"owner": None, "state": _unowned(one)}) for one in plain]
        name = smart_nic.metadata.name
        return with_disks(with_owners(freed, self._claims.of_nic(name)), await self._disks.owners(name))

    async def _tell(
        self, smart_nic: SmartNIC, view: NicView, found: Sequence[FunctionStatus], wrong: CarmelError | None
    ) -> SmartNIC:
        now, host = self._runtime.clock.now(), self._runtime.host
        return await self._resources.update_status(smart_nic, lambda one: tell(one, host, view, found, wrong, now))

    def _wake_machines(self) -> None:
        ready = [
            stored.name
            for stored in self._informer
            if any(
                one.get("type") == "Ready" and one.get("status") == "True"
                for one in (stored.json().get("status") or {}).get("conditions") or ()
            )
        ]
        for uid in self._nics.wake(ready):
            self._wake(uid)

    # -- the end ------------------------------------------------------------------------------------------------
    async def _delete(self, smart_nic: SmartNIC) -> float | None:
        """Functions go back to the kernel's drivers. One that a VM has stays until that VM ends: the kernel would wait
        for it, and nobody could stop that."""
        name = smart_nic.metadata.name
        claims, disks = self._claims.of_nic(name), await self._disks.owners(name)
        taken = {one.function.id for one in claims} | set(disks)
        for function in smart_nic.status.functions or ():
            if function.driver == VFIO and function.pci_address is not None and function.id not in taken:
                await self._functions.give_back(function.pci_address)
        if claims or disks:
            ports = ", ".join(
                [f"Port {one.key}" for one in claims] + [f"Volume {one.namespace}/{one.name}" for one in disks.values()]
            )
            waiting = condition(
                "Ready",
                "False",
                "FunctionsInUse",
                f"it goes when nothing has a function of it: {ports}",
            )
            await self._resources.update_status(
                smart_nic, lambda one: set_conditions(one.status, [waiting], self._runtime.clock.now())
            )
            return None
        await self._drop(name)
        await self._resources.remove_finalizer(smart_nic, FINALIZER)
        return None

    # -- where keys come from -----------------------------------------------------------------------------------
    def _look(self, name: str) -> None:
        self._controller.enqueue_after(Key(None, name), _GATHER_SECONDS)

    def _with_secret(self, secret: JsonObject) -> list[Key]:
        metadata = secret["metadata"]
        if metadata.get("namespace") != NAMESPACE:
            return []
        return [
            key_of(stored)
            for stored in self._informer
            if ((stored.json().get("spec") or {}).get("credentialsSecretRef") or {}).get("name") == metadata["name"]
        ]


def _unowned(function: FunctionStatus) -> FunctionState:
    return FunctionState.FREE if function.state is FunctionState.PLUGGED else function.state
