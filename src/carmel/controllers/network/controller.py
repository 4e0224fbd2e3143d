"""Networks: says which can be used on this host, and by what they are realised."""

from __future__ import annotations

from carmel.controllers.network.hosted import FINALIZER, HostedNetworks
from carmel.controllers.network.hostnetworks import HostNetworks, is_hosted
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, Watch, condition, key_of, set_conditions
from carmel.errors import AlreadyExists
from carmel.network.backends import Backends, Choice
from carmel.resources.base import Condition, JsonObject, ObjectMeta
from carmel.resources.network import NETWORK, Network, NetworkProvider
from carmel.resources.port import PORT, DataPlane

DEFAULT = "default"


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
                watches=(Watch(PORT, _network_of),),
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )

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

    def _others_may_have_room(self) -> None:
        """What a network that is gone had (a subnet, an uplink) may be what others are refused for."""
        for stored in self._informer:
            if any(one.get("status") == "False" for one in stored.json().get("status", {}).get("conditions") or []):
                self._controller.enqueue(key_of(stored))

    async def _show(self, network: Network) -> None:
        supported = network.spec.provider is NetworkProvider.USER
        choice = await self._backends.choice() if supported else None

        def change(one: Network) -> None:
            one.status.observed_generation = one.metadata.generation
            one.status.backend = None if choice is None else choice.backend.value
            set_conditions(one.status, _conditions(one, choice), self._runtime.clock.now())

        await self._resources.update_status(network, change)


def _network_of(port: JsonObject) -> list[Key]:
    return [Key(None, port["spec"]["networkRef"]["name"])]


def _conditions(network: Network, choice: Choice | None) -> list[Condition]:
    generation = network.metadata.generation
    if choice is not None:
        return [
            condition("Accepted", "True", "Supported", generation=generation),
            condition("Ready", "True", "Available", choice.reason, generation=generation),
        ]
    message = f"provider {network.spec.provider.value} is not offered by this version: use provider user"
    return [
        condition("Accepted", "False", "NotSupported", message, generation=generation),
        condition("Ready", "False", "NotSupported", message, generation=generation),
    ]
