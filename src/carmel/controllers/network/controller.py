"""Networks: says which can be used on this host, and by what they are realised."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from carmel.controllers.network.hosted import FINALIZER, HostedNetworks, refused_networks
from carmel.controllers.network.hostnetworks import HostNetworks, is_hosted
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, condition, set_conditions
from carmel.controllers.runtime.informer import Change
from carmel.errors import AlreadyExists
from carmel.network import cabling
from carmel.network.backends import Backends
from carmel.resources.base import Condition, ObjectMeta
from carmel.resources.network import NETWORK, Network, NetworkProvider
from carmel.resources.port import PORT, DataPlane

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class _Means:
    """What realises a network here, and what there is to say of it."""

    backend: str
    message: str


class NetworkController:
    """Networks that a SmartNIC switches are another controller's."""

    def __init__(self, runtime: Runtime, backends: Backends, host: HostNetworks) -> None:
        self._runtime = runtime
        self._backends = backends
        self._resources: Resources[Network] = runtime.resources(NETWORK, Network, manager="network-controller")
        self._hosted = HostedNetworks(runtime, host, self._resources)
        self._informer = runtime.informer(NETWORK)
        self._controller = runtime.add(
            ControllerSpec(
                "network",
                NETWORK,
                self.reconcile,
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )

        runtime.informer(PORT).listen(self._port_changed)

    async def ensure_default(self) -> None:
        """Make the network ``default`` if there is none. To be called when the daemon starts."""
        try:
            await self._resources.create(Network(metadata=ObjectMeta(name=DEFAULT)))
        except AlreadyExists:
            return

    async def reconcile(self, key: Key) -> float | None:
        network = await self._resources.find(key)
        if network is None:
            self._others_may_have_room()
            return None
        if is_hosted(network):
            return await self._hosted.settle(network)
        if FINALIZER in (network.metadata.finalizers or []):
            return await self._hosted.let_go(network)
        if network.metadata.deletion_timestamp is None and network.spec.data_plane is DataPlane.HOST:
            await self._show(network)
        return None

    def _port_changed(self, change: Change) -> None:
        """Only how many there are is of interest."""
        networks = [state["spec"]["networkRef"]["name"] for state in change.states]
        if len(networks) < 2 or networks[0] != networks[1]:
            for name in networks:
                self._controller.enqueue(Key(None, name))

    def _others_may_have_room(self) -> None:
        for key in refused_networks(self._informer):
            self._controller.enqueue(key)

    async def _show(self, network: Network) -> None:
        """Networks of providers user and cable: what they need is made with the VMs that are on them."""
        means = await self._means(network.spec.provider)

        def change(one: Network) -> None:
            one.status.observed_generation = one.metadata.generation
            one.status.backend = means.backend
            set_conditions(one.status, _conditions(one, means), self._runtime.clock.now())

        await self._resources.update_status(network, change)

    async def _means(self, provider: NetworkProvider) -> _Means:
        if provider is NetworkProvider.CABLE:
            return _Means("datagrams", await asyncio.to_thread(cabling.queue_problem))
        choice = await self._backends.choice()
        return _Means(choice.backend.value, choice.reason)


def _conditions(network: Network, means: _Means) -> list[Condition]:
    generation = network.metadata.generation
    return [
        condition("Accepted", "True", "Supported", generation=generation),
        condition("Ready", "True", "Available", means.message, generation=generation),
    ]
