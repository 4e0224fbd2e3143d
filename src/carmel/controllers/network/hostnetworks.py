"""This host's data plane, once it may be used: claimed for this daemon, and begun with what an earlier one made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from carmel.controllers.network.plans import network_plan, port_plan
from carmel.controllers.network.putback import PutBack
from carmel.controllers.runtime import Runtime
from carmel.errors import CarmelError
from carmel.network.dataplane import DataPlane
from carmel.resources.network import NETWORK, Network, NetworkProvider
from carmel.resources.port import PORT, Port
from carmel.resources.port import DataPlane as Switch

_log = logging.getLogger(__name__)


class Claim(Protocol):
    """The right to have the host networks of this machine."""

    def made_before(self) -> bool:
        """Whether this daemon, or an earlier one on the same state, had them: something may be left."""
        ...

    def take(self) -> None:
        """Raises ``Refused`` when it is another's, or not for this daemon to have. May be repeated."""
        ...

    def release(self) -> None: ...


class Switching(Protocol):
    """Whoever has a data plane, once it may be used."""

    async def plane(self) -> DataPlane:
        """Raises ``Refused`` where there can be none, ``Unavailable``."""
        ...

    @property
    def begun(self) -> bool:
        """``plane`` was given: there may be ports."""
        ...


def is_hosted(network: Network) -> bool:
    """Whether this host's own kernel is to switch it."""
    providers = {NetworkProvider.NAT, NetworkProvider.BRIDGE}
    return network.spec.provider in providers and network.spec.data_plane is Switch.HOST


class HostNetworks:
    """Nothing is touched before ``begin`` finds a reason to, or ``plane`` is asked for. ``data_plane`` makes one."""

    def __init__(self, runtime: Runtime, data_plane: Callable[[], DataPlane], claim: Claim) -> None:
        self._networks = runtime.resources(NETWORK, Network)
        self._ports = runtime.resources(PORT, Port)
        self._put_back = PutBack(runtime, is_hosted)
        self._make = data_plane
        self._plane: DataPlane | None = None
        self._claim = claim
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """To be called when the daemon starts: VMs that run keep their networks, what is left over goes. What stands
        against it is said again by whoever asks for ``plane``."""
        if not self._claim.made_before() and not any(map(is_hosted, await self._networks.list())):
            return
        try:
            await self.plane()
        except CarmelError as error:
            _log.warning("host networks: %s", error)

    async def plane(self) -> DataPlane:
        """Raises ``Refused`` where there can be none, ``Unavailable``."""
        async with self._lock:
            if self._plane is None:
                await asyncio.to_thread(self._claim.take)
                plane = self._make()
                try:
                    await self._adopt(plane)
                except BaseException:
                    await plane.aclose()
                    raise
                plane.watch(self._put_back.tell)
                self._plane = plane
            return self._plane

    @property
    def begun(self) -> bool:
        """``plane`` was given: there may be ports."""
        return self._plane is not None

    async def close(self) -> None:
        """Networks and ports stay."""
        if self._plane is not None:
            await self._plane.aclose()
        self._claim.release()

    async def _adopt(self, plane: DataPlane) -> None:
        networks = [one for one in await self._networks.list() if is_hosted(one)]
        names = {one.metadata.name for one in networks}
        ports = [port_plan(one) for one in await self._ports.list() if one.spec.network_ref.name in names]
        await plane.adopt([network_plan(one) for one in networks], ports)
