"""Networks: says which can be used on this host, and by what they are realised."""

from __future__ import annotations

from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, condition, set_conditions
from carmel.errors import AlreadyExists
from carmel.network.backends import Backends, Choice
from carmel.resources.base import Condition, ObjectMeta
from carmel.resources.network import NETWORK, Network, NetworkProvider

DEFAULT = "default"


class NetworkController:
    def __init__(self, runtime: Runtime, backends: Backends) -> None:
        self._runtime = runtime
        self._backends = backends
        self._resources: Resources[Network] = runtime.resources(NETWORK, Network, manager="network-controller")
        runtime.add(
            ControllerSpec(
                "network", NETWORK, self.reconcile, workers=1, on_failure=runtime.show_failure(self._resources)
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
        if network is None or network.metadata.deletion_timestamp is not None:
            return None
        supported = network.spec.provider is NetworkProvider.USER
        choice = await self._backends.choice() if supported else None

        def change(one: Network) -> None:
            one.status.observed_generation = one.metadata.generation
            one.status.backend = None if choice is None else choice.backend.value
            set_conditions(one.status, _conditions(one, choice), self._runtime.clock.now())

        await self._resources.update_status(network, change)
        return None


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
