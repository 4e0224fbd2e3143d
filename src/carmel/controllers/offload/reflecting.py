"""Networks and Ports of the host that a SmartNIC switches: their status says what the NIC says of its own."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.client.objects import JsonObject
from carmel.controllers.offload.choosing import candidates, is_ready
from carmel.controllers.offload.claims import MANAGER
from carmel.controllers.offload.links import Links
from carmel.controllers.offload.reflection import Reflected, of_view, reflect_network, reflect_port
from carmel.controllers.runtime import ControllerSpec, Key, Runtime, Watch, find_condition, key_of
from carmel.controllers.runtime.informer import Change
from carmel.errors import CarmelError, Unavailable
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, DataPlane, Port
from carmel.resources.smartnic import SMART_NIC, SmartNIC
from carmel.smartnic.kinds import NETWORKS, PORTS
from carmel.smartnic.link import CONNECTING
from carmel.smartnic.reading import condition_of

_NETWORK = "network"


class Reflecting:
    """Build it before the runtime starts."""

    def __init__(self, runtime: Runtime, links: Links) -> None:
        self._runtime = runtime
        self._links = links
        self._networks = runtime.resources(NETWORK, Network, manager=MANAGER)
        self._ports = runtime.resources(PORT, Port, manager=MANAGER)
        self._smart_nics = runtime.resources(SMART_NIC, SmartNIC)
        self._network_informer = runtime.informer(NETWORK)
        self._port_informer = runtime.informer(PORT)
        self._port_informer.add_index(_NETWORK, lambda port: [port["spec"]["networkRef"]["name"]])
        self._known: dict[str, tuple[tuple[str, str] | None, dict[tuple[str, str, str], JsonObject]]] = {}
        self._network_controller = runtime.add(
            ControllerSpec(
                "offloaded-networks",
                NETWORK,
                self.reconcile_network,
                watches=(Watch(PORT, _network_of),),
                accepts=_is_offloaded,
                workers=1,
                on_failure=runtime.show_failure(self._networks),
            )
        )
        self._port_controller = runtime.add(
            ControllerSpec(
                "offloaded-ports",
                PORT,
                self.reconcile_port,
                watches=(Watch(NETWORK, self._ports_on),),
                workers=2,
                on_failure=runtime.show_failure(self._ports),
            )
        )
        links.listen(self._nic_told)
        runtime.informer(SMART_NIC).listen(self._smart_nic_changed)

    async def reconcile_network(self, key: Key) -> float | None:
        network = await self._networks.find(key)
        if network is None or network.spec.data_plane is not DataPlane.SMART_NIC:
            return None
        among = candidates(network, await self._smart_nics.list())
        seen = [self._seen(one, NETWORKS.plural, ("", key.name)) for one in among]
        if any(_is_connecting(one) for one in seen) and network.status.conditions:
            return None
        ports = len(self._port_informer.indexed(_NETWORK, key.name))
        now = self._runtime.clock.now()
        await self._networks.update_status(network, lambda one: reflect_network(one, seen, ports, now))
        return None

    async def reconcile_port(self, key: Key) -> float | None:
        port = await self._ports.find(key)
        if port is None or port.metadata.deletion_timestamp is not None:
            return None
        network = await self._networks.find(Key(None, port.spec.network_ref.name))
        if network is None or network.spec.data_plane is not DataPlane.SMART_NIC:
            return None
        seen = self._of_port(port, candidates(network, await self._smart_nics.list()))
        if seen is None or (_is_connecting(seen) and port.status.conditions):
            return None
        now = self._runtime.clock.now()
        await self._ports.update_status(port, lambda one: reflect_port(one, seen, now))
        return None

    def _of_port(self, port: Port, among: list[SmartNIC]) -> Reflected | None:
        """What its SmartNIC says. Which of several that will be is known from its VM's first start on."""
        chosen = port.status.smart_nic
        mine = [one for one in among if one.metadata.name == chosen] or among
        if not mine:
            return Reflected(None, wrong=Unavailable("there is no SmartNIC for its network", code="WaitingForSmartNIC"))
        key = (port.metadata.namespace or "", port.metadata.name)
        seen = [self._seen(one, PORTS.plural, key) for one in mine]
        there = next((one for one in seen if one.there is not None), None)
        if there is not None or len(mine) == 1:
            return there or seen[0]
        # The start chooses one, and asks for its port then.
        return next((Reflected(None) for one in seen if one.wrong is None), seen[0])

    def _seen(self, smart_nic: SmartNIC, plural: str, key: tuple[str, str]) -> Reflected:
        name = smart_nic.metadata.name
        return of_view(name, self._links.view(name), plural, key, _disbelief(smart_nic))

    # -- where keys come from -----------------------------------------------------------------------------------
    def _nic_told(self, name: str) -> None:
        """Of what the NIC has, only what is another than before is looked at: ports count all the time."""
        view = self._links.view(name)
        objects = {
            (plural, *key): obj
            for plural in (NETWORKS.plural, PORTS.plural)
            for key, obj in view.objects.get(plural, {}).items()
        }
        error = None if view.error is None else (view.error.code, view.error.message)
        known = self._known.get(name, (None, {}))
        self._known[name] = error, objects
        if known[0] != error:
            self._look_at_all()
            return
        changed = {key for key, obj in objects.items() if known[1].get(key) is not obj} | (set(known[1]) - set(objects))
        for plural, namespace, called in changed:
            if plural == PORTS.plural:
                self._port_controller.enqueue(Key(namespace, called))
            else:
                self._network_controller.enqueue(Key(None, called))

    def _smart_nic_changed(self, change: Change) -> None:
        """Whether it may be used: which functions are free is nothing that Networks and Ports tell."""
        states = [_readiness(one) for one in change.states]
        if len(states) < 2 or states[0] != states[1]:
            self._look_at_all()

    def _look_at_all(self) -> None:
        for port in self._all_ports():
            self._port_controller.enqueue(port)
        for network in self._offloaded():
            self._network_controller.enqueue(network)

    def _offloaded(self) -> list[Key]:
        return [key_of(stored) for stored in self._network_informer if _is_offloaded(stored.json())]

    def _all_ports(self) -> list[Key]:
        return [port for network in self._offloaded() for port in self._port_informer.indexed(_NETWORK, network.name)]

    def _ports_on(self, network: JsonObject) -> Iterable[Key]:
        return self._port_informer.indexed(_NETWORK, network["metadata"]["name"]) if _is_offloaded(network) else ()


def _disbelief(smart_nic: SmartNIC) -> CarmelError | None:
    if is_ready(smart_nic):
        return None
    ready = find_condition(smart_nic.status, "Ready")
    said = ready.message.rstrip(".") if ready is not None and ready.message else "its state is not known yet"
    return Unavailable(f"SmartNIC {smart_nic.metadata.name} is not ready: {said}", code="WaitingForSmartNIC")


def _readiness(smart_nic: JsonObject) -> tuple[object, ...]:
    ready = condition_of(smart_nic, "Ready")
    goes = smart_nic["metadata"].get("deletionTimestamp")
    return goes, ready.get("status"), ready.get("reason"), ready.get("message")


def _is_connecting(seen: Reflected) -> bool:
    return seen.wrong is not None and seen.wrong.code == CONNECTING


def _is_offloaded(network: JsonObject) -> bool:
    return bool((network.get("spec") or {}).get("dataPlane") == DataPlane.SMART_NIC)


def _network_of(port: JsonObject) -> list[Key]:
    return [Key(None, port["spec"]["networkRef"]["name"])]
