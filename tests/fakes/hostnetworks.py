"""Host networks on a data plane in memory."""

from __future__ import annotations

from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.runtime import Runtime
from carmel.errors import CarmelError
from carmel.network.host.refusals import not_permitted
from tests.fakes.dataplane import FakeDataPlane


class FakeClaim:
    """``refusal``: why it is not to be had. ``made``: it was had before. ``taken``: how often it was asked for."""

    def __init__(self, refusal: CarmelError | None = None, *, made: bool = False) -> None:
        self.refusal = refusal
        self.made = made
        self.taken = 0

    def made_before(self) -> bool:
        return self.made

    def take(self) -> None:
        self.taken += 1
        if self.refusal is not None:
            raise self.refusal
        self.made = True

    def release(self) -> None:
        self.taken = 0


def host_networks(runtime: Runtime, plane: FakeDataPlane, claim: FakeClaim | None = None) -> HostNetworks:
    return HostNetworks(runtime, lambda: plane, claim or FakeClaim())


def no_host_networks(runtime: Runtime) -> HostNetworks:
    """As an unprivileged daemon has them."""
    return host_networks(runtime, FakeDataPlane(), FakeClaim(not_permitted()))
