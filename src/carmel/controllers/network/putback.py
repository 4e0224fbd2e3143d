"""Tells on Networks that another program changed what the kernel filters or masquerades for them."""

from __future__ import annotations

from collections.abc import Callable

from carmel.controllers.runtime import EventKind, Runtime
from carmel.resources.network import NETWORK, Network

_TOLD_NETWORKS = 20


class PutBack:
    """``serves`` says which Networks the data plane has. Build it before the runtime starts."""

    def __init__(self, runtime: Runtime, serves: Callable[[Network], bool]) -> None:
        self._events = runtime.events
        self._serves = serves
        self._resources = runtime.resources(NETWORK, Network)
        self._informer = runtime.informer(NETWORK)

    def tell(self, who: str) -> None:
        message = f"{who} changed rules of the networks' ports or of nat in the kernel; they were put back"
        networks = [self._resources.parse(stored) for stored in self._informer]
        for network in [one for one in networks if self._serves(one)][:_TOLD_NETWORKS]:
            self._events.record(NETWORK, network, EventKind.WARNING, "RulesPutBack", message)
