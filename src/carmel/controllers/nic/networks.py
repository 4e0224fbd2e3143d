"""Networks on a SmartNIC: all of provider nat and bridge are its own to switch, whoever the host has say so."""

from __future__ import annotations

from collections.abc import Callable

from carmel.controllers.network.hosted import FINALIZER, HostedNetworks, refused_networks
from carmel.controllers.network.plans import network_plan, port_plan
from carmel.controllers.network.putback import PutBack
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, Watch, condition, set_conditions
from carmel.errors import Refused
from carmel.network.dataplane import DataPlane
from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK, Network, NetworkProvider
from carmel.resources.port import PORT, Port

_USED_SECONDS = 5.0
_SWITCHED = frozenset({NetworkProvider.NAT, NetworkProvider.BRIDGE})


def is_switched(network: Network) -> bool:
    return network.spec.provider in _SWITCHED


class NicSwitch:
    """The NIC's data plane, begun with what an earlier daemon made. ``made``: the networks that this daemon has made or
    found as they are to be. (A status may be older than the last power cut.) ``looked_at``: those, and the refused."""

    begun = True

    def __init__(self, runtime: Runtime, plane: DataPlane) -> None:
        self._networks = runtime.resources(NETWORK, Network)
        self._ports = runtime.resources(PORT, Port)
        self._plane = plane
        plane.watch(PutBack(runtime, is_switched).tell)
        self.made: set[str] = set()
        self.looked_at: set[str] = set()
        self._told: list[Callable[[str], None]] = []

    def on_made(self, told: Callable[[str], None]) -> None:
        """Call ``told`` with the name of each network that ports can be plugged into from now on, or that was looked at
        for the first time."""
        self._told.append(told)

    def note(self, name: str, *, made: bool) -> None:
        new = name not in self.looked_at or (made and name not in self.made)
        self.looked_at.add(name)
        if made:
            self.made.add(name)
        else:
            self.made.discard(name)
        if new:
            for told in self._told:
                told(name)

    async def begin(self) -> None:
        """Traffic goes on meanwhile: what is there and still wanted stays as it is, what is left over goes."""
        networks = [one for one in await self._networks.list() if is_switched(one)]
        names = {one.metadata.name for one in networks}
        ports = [
            port_plan(one)
            for one in await self._ports.list()
            if one.spec.function is not None and one.spec.network_ref.name in names
        ]
        await self._plane.adopt([network_plan(one) for one in networks], ports)

    async def plane(self) -> DataPlane:
        return self._plane


class NicNetworkController:
    """What a network says of the host's own networks (provider user, cable) is not for a NIC."""

    def __init__(self, runtime: Runtime, switch: NicSwitch) -> None:
        self._runtime = runtime
        self._switch = switch
        self._resources: Resources[Network] = runtime.resources(NETWORK, Network, manager="network-controller")
        self._hosted = HostedNetworks(runtime, switch, self._resources)
        self._informer = runtime.informer(NETWORK)
        self._controller = runtime.add(
            ControllerSpec(
                "network",
                NETWORK,
                self.reconcile,
                watches=(Watch(PORT, _network_of),),
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )

    async def reconcile(self, key: Key) -> float | None:
        network = await self._resources.find(key)
        if network is None:
            return await self._forget(key.name)
        if is_switched(network):
            again = await self._hosted.settle(network)
            now = await self._resources.find(key)
            self._switch.note(key.name, made=not_ready_because(now, key.name) is None)
            return again
        self._switch.note(key.name, made=False)
        if FINALIZER in (network.metadata.finalizers or []):
            return await self._hosted.let_go(network)
        if network.metadata.deletion_timestamp is None:
            await self._refuse(network)
        return None

    async def _forget(self, name: str) -> float | None:
        """It is gone, whether or not its finalizer was waited for: ports on it are unplugged first."""
        self._switch.note(name, made=False)
        try:
            await (await self._switch.plane()).remove_network(name)
        except Refused:
            return _USED_SECONDS
        self._others_may_have_room()
        return None

    def _others_may_have_room(self) -> None:
        for key in refused_networks(self._informer):
            self._controller.enqueue(key)

    async def _refuse(self, network: Network) -> None:
        message = f"a SmartNIC does not switch networks of provider {network.spec.provider.value}: use nat or bridge"

        def change(one: Network) -> None:
            generation = one.metadata.generation
            one.status.observed_generation = generation
            refused = [
                condition(kind, "False", "NotSupported", message, generation=generation)
                for kind in ("Accepted", "Ready")
            ]
            set_conditions(one.status, refused, self._runtime.clock.now())

        await self._resources.update_status(network, change)


def _network_of(port: JsonObject) -> list[Key]:
    return [Key(None, port["spec"]["networkRef"]["name"])]


def not_ready_because(network: Network | None, name: str) -> str | None:
    """Why nothing can be plugged into the network yet, in a sentence; ``None``: it can."""
    if network is None:
        return f"there is no network {name} on this SmartNIC"
    for one in network.status.conditions or []:
        if one.type == "Ready" and one.status == "True":
            return None
        if one.type == "Ready" and one.status == "False":
            return f"the network {name} is not ready: {one.message or one.reason}"
    return f"the network {name} is being made"
