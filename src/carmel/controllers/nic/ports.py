"""Ports on a SmartNIC: the function that a Port names is plugged into it, by its representor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from carmel.controllers.nic.networks import NicSwitch, not_ready_because
from carmel.controllers.nic.portstatus import Plugged, describe_plugged, describe_remote, describe_unplugged
from carmel.controllers.nic.self_status import SelfStatus
from carmel.controllers.nic.wishes import REMOTE, Refusal, Wish, wish_of
from carmel.controllers.runtime import (
    ControllerSpec,
    EventKind,
    Key,
    Resources,
    Runtime,
    Watch,
    error_message,
    find_condition,
    key_of,
)
from carmel.errors import NotFound, Refused
from carmel.network.dataplane import DataPlane, PortPlan
from carmel.network.names import port_name
from carmel.resources.base import JsonObject
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, Port
from carmel.smartnic.models.model import SmartNicModel

Prepare = Callable[[], Awaitable[None]]
"""Have the firewall in force: see ``FirewallController.prepare``."""

_RETRY_SECONDS = 30.0
_NOT_LOOKED_AT = Refusal("NetworkNotReady", "its network is being made")


def _name(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


INDEXES: Mapping[str, Callable[[JsonObject], list[str]]] = {
    "network": lambda port: [port["spec"]["networkRef"]["name"]],
    "function": lambda port: [name for name in [port["spec"].get("function")] if name],
    "nic": lambda port: [_name(port["spec"]["owner"], port["spec"]["nic"])],
    "mirror": lambda port: [
        _name(port["metadata"]["namespace"], one["name"]) for one in [port["spec"].get("mirrorTo")] if one
    ],
}
"""Of ports, by what they have to do with one another."""


class NicPortController:
    """``plugged``: what was realised, by port. It is realised again when it is to be otherwise, or went away."""

    def __init__(
        self, runtime: Runtime, name: str, itself: SelfStatus, model: SmartNicModel, switch: NicSwitch, prepare: Prepare
    ) -> None:
        self.plugged: dict[Key, PortPlan] = {}
        self._runtime = runtime
        self._name = name
        self._itself = itself
        self._model = model
        self._switch = switch
        self._prepare = prepare
        self._plugging = asyncio.Lock()
        self._resources: Resources[Port] = runtime.resources(PORT, Port, manager="port-controller")
        self._networks: Resources[Network] = runtime.resources(NETWORK, Network)
        self._ports = runtime.informer(PORT)
        self._policies = runtime.informer(FIREWALL_POLICY)
        for index, function in INDEXES.items():
            self._ports.add_index(index, function)
        self._controller = runtime.add(
            ControllerSpec(
                "port",
                PORT,
                self.reconcile,
                watches=(Watch(NETWORK, self._ports_on), Watch(PORT, self._rivals_of)),
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )
        # Where there is no firewall, ports are plugged only as long as nobody wants one.
        self._policies.listen(lambda _change: self.look_again())
        itself.on_change(self.look_again)
        switch.on_made(self._network_made)

    def look_again(self) -> None:
        """Functions came or went."""
        for stored in self._ports:
            self._controller.enqueue(key_of(stored))

    def _network_made(self, name: str) -> None:
        for key in self._ports.indexed("network", name):
            self._controller.enqueue(key)

    async def reconcile(self, key: Key) -> float | None:
        port = await self._resources.find(key)
        if port is None:
            await self._unplug(key)
            return None
        plane = await self._switch.plane()
        wish = await self._wish(port)
        if isinstance(wish, Refusal):
            if wish is _NOT_LOOKED_AT and port_name(port.spec.owner, port.spec.nic) in await plane.attached():
                return None  # An earlier daemon plugged it in, and traffic goes on: ``_network_made`` comes back to it.
            await self._unplug(key, port_name(port.spec.owner, port.spec.nic))
            await self._show_refusal(port, wish)
            return None
        try:
            await self._plug(plane, key, wish)
        except (Refused, NotFound) as error:
            refusal = Refusal(error.code, error_message(error))
            await self._show_refusal(port, refusal, as_before=key in self.plugged)
            return _RETRY_SECONDS
        await self._show(port, wish)
        return None

    # -- what is to be --------------------------------------------------------------------------------------------
    async def _wish(self, port: Port) -> Wish | Refusal:
        if port.metadata.deletion_timestamp is not None:
            return Refusal("Deleted", "it is being deleted")
        mirror = None
        if port.spec.mirror_to is not None:
            mirror = await self._resources.find(Key(port.metadata.namespace, port.spec.mirror_to.name))
        rivals = [one for one in map(self._ports.get, self._rivals_of(port.to_json())) if one is not None]
        wish = wish_of(port, mirror, rivals, self._itself.shown, sets_macs=self._model.sets_macs)
        if isinstance(wish, Refusal):
            return wish
        network = port.spec.network_ref.name
        there = await self._networks.find(Key(None, network))
        if there is not None and network not in self._switch.looked_at:
            return _NOT_LOOKED_AT
        missing = not_ready_because(there, network)
        if missing is None and network not in self._switch.made:
            missing = f"the network {network} is being made"
        return wish if missing is None else Refusal("NetworkNotReady", missing)

    def _ports_on(self, network: JsonObject) -> list[Key]:
        return self._ports.indexed("network", network["metadata"]["name"])

    def _rivals_of(self, port: JsonObject) -> list[Key]:
        """Those for the same function or the same NIC, itself among them, and who mirrors to it."""
        found: dict[Key, None] = {}
        for index in ("function", "nic"):
            for value in INDEXES[index](port):
                found |= dict.fromkeys(self._ports.indexed(index, value))
        mirroring = self._ports.indexed("mirror", _name(port["metadata"]["namespace"], port["metadata"]["name"]))
        return [*found, *mirroring]

    # -- what is done ---------------------------------------------------------------------------------------------
    async def _plug(self, plane: DataPlane, key: Key, wish: Wish) -> None:
        async with self._plugging:
            await self._have_a_firewall(plane)
            if self.plugged.get(key) == wish.plan and self._is_there(wish.plan):
                return
            if wish.function_mac is not None:
                await self._model.set_mac(wish.function, wish.function_mac)
            # A plan that is refused leaves the port as it was.
            await plane.attach(wish.plan)
            self.plugged[key] = wish.plan
        self._itself.look_again()

    async def _have_a_firewall(self, plane: DataPlane) -> None:
        """Before a port is plugged. A machine that has none may do without as long as there are no policies."""
        try:
            await self._prepare()
        except Refused:
            if not len(self._policies):
                return
            self.plugged.clear()
            for interface in await plane.attached():
                await plane.detach(interface)
            raise

    def _is_there(self, plan: PortPlan) -> bool:
        return any(one.interface == plan.interface for one in self._itself.shown.representors)

    async def _unplug(self, key: Key, interface: str | None = None) -> None:
        """``interface``: what an earlier daemon may have plugged in for the port."""
        async with self._plugging:
            known = self.plugged.pop(key, None)
            name = known.interface if known is not None else interface
            plane = await self._switch.plane()
            if name is None or name not in await plane.attached():
                return
            if any(name == other.interface for other in self.plugged.values()):
                return  # of another Port of the same NIC of the same owner, which has it
            await plane.detach(name)
        self._itself.look_again()

    # -- what is shown --------------------------------------------------------------------------------------------
    async def _show(self, port: Port, wish: Wish) -> None:
        plugged = Plugged(self._name, wish.function, wish.plan)
        now = self._runtime.clock.now()
        await self._resources.update_status(port, lambda one: describe_plugged(one, plugged, now))

    async def _show_refusal(self, port: Port, refusal: Refusal, *, as_before: bool = False) -> None:
        """``as_before``: it is plugged as it was to be before it was changed."""
        before = find_condition(port.status, "Ready")
        now = self._runtime.clock.now()
        try:
            if refusal is REMOTE:
                await self._resources.update_status(port, lambda one: describe_remote(one, now))
                return
            await self._resources.update_status(
                port, lambda one: describe_unplugged(one, self._name, refusal, now, as_before=as_before)
            )
        except NotFound:
            return
        if port.spec.function is not None and (before is None or before.reason != refusal.reason):
            self._runtime.events.record(PORT, port, EventKind.WARNING, refusal.reason, refusal.message)
