"""Plans a VM's NICs for its controller: the back end that works here, and ports that are really free."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from carmel.controllers.network.fitting import SWITCHED, require_without
from carmel.controllers.runtime import Clock
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.hypervisor.config import Helper, NicConfig
from carmel.network import user
from carmel.network.backends import Backends
from carmel.network.ports import HostPort, can_bind
from carmel.resources.network import NetworkProvider
from carmel.resources.virtualmachine import NetworkInterfaceStatus

_START_SECONDS = 60.0
"""A VM that was given a port listens on it after this time, or never will."""


class UserNics:
    """A ``NicSource``: networks of provider user. Between a plan and QEMU's start a port is free to the eye: so it is
    kept for that VM."""

    def __init__(self, backends: Backends, clock: Clock) -> None:
        self._backends = backends
        self._clock = clock
        self._lock = asyncio.Lock()
        self._given: dict[HostPort, tuple[str, float]] = {}

    def serves(self, wanted: WantedNic) -> bool:
        return wanted.network.spec.provider is NetworkProvider.USER

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        """Helpers are QEMU's and end with it; ports are free when nobody listens."""

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        for one in wanted:
            require_without(
                one,
                ("queues", *SWITCHED),
                "is a private one for each NIC, by provider user",
                "leave it out, or use a network of provider nat or bridge",
            )
        backend = await self._backends.best()
        uid = vm.uid
        sockets = {one.index: vm.paths.network_socket(one.index) for one in wanted}
        async with self._lock:
            now = self._clock.monotonic()
            # What this very VM was given for an earlier try is its own.
            given = {
                port: (owner, until) for port, (owner, until) in self._given.items() if owner != uid and until > now
            }
            plans = await asyncio.to_thread(
                user.plan_nics,
                uid,
                vm.vm.metadata.name,
                [(one.index, one.nic, one.network) for one in wanted],
                vm.before,
                sockets,
                backend,
                lambda port: port not in given and can_bind(port),
            )
            for plan in plans:
                for forward in plan.forwards:
                    port = HostPort(forward.protocol, forward.host_address, forward.host_port)
                    given[port] = (uid, now + _START_SECONDS)
            self._given = given
        return [_translated(plan) for plan in plans]


def _translated(plan: user.NicPlan) -> NicPlan:
    helper = None if plan.helper is None else Helper(plan.helper.name, plan.helper.argv, plan.helper.socket)
    return NicPlan(
        config=NicConfig(plan.name, plan.mac, plan.netdev, helper),
        status=NetworkInterfaceStatus(
            name=plan.name,
            network_name=plan.network_name,
            mac=plan.mac,
            addresses=[plan.address],
            forwards=list(plan.forwards) or None,
        ),
    )
