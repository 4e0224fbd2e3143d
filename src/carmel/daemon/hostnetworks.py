"""The networks of a host: user networks, those that this machine's kernel switches, their ports and their firewall."""

from __future__ import annotations

import logging

from carmel.controllers.firewall import FirewallController
from carmel.controllers.firewall_ports import StorePorts
from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.network.ports import PortController
from carmel.controllers.network.tapnics import TapNics
from carmel.controllers.network.usernics import UserNics
from carmel.controllers.runtime import Runtime
from carmel.controllers.virtualmachine.ports import NicSource
from carmel.errors import CarmelError
from carmel.network.backends import Backends
from carmel.network.dataplane import DataPlane
from carmel.network.firewall.nft import NftFirewall
from carmel.network.firewall.nft_tables import NftTables
from carmel.network.firewall.nft_watch import NftWatch
from carmel.network.host.claim import Claim
from carmel.paths import Paths
from carmel.resources.virtualmachine import VirtualMachine
from carmel.run import Runner

_log = logging.getLogger(__name__)


class HostNetworking:
    """``start`` before the controllers of the runtime start, ``close`` after they ended. ``sources`` give VMs their
    NICs."""

    def __init__(self, runtime: Runtime, paths: Paths, runner: Runner, backends: Backends) -> None:
        self._watch = NftWatch()
        self._host = HostNetworks(runtime, lambda: _data_plane(paths, runner, self._watch), Claim(paths.networks))
        self._networks = NetworkController(runtime, backends, self._host)
        self._rules = NftFirewall(NftTables(watch=self._watch))
        self._firewall = FirewallController(runtime, self._rules, StorePorts(runtime))
        ports = PortController(runtime, self._host)
        self.sources: list[NicSource] = [
            UserNics(backends, runtime.clock),
            TapNics(runtime, self._host, self._admit, ports.look),
        ]

    async def start(self) -> None:
        """What VMs that run are plugged into stays, what is left over goes."""
        await self._networks.ensure_default()
        await self._host.begin()
        if self._host.begun and not await (await self._host.plane()).attached():
            try:
                await self._rules.remove()
            except CarmelError as error:
                _log.debug("there is no firewall to remove: %s", error)

    async def close(self) -> None:
        """Ports and the firewall's rules stay."""
        await self._host.close()
        self._rules.close()
        self._watch.close()

    async def _admit(self, vm: VirtualMachine) -> None:
        await self._firewall.admit(vm.metadata.namespace or "default", vm.metadata.labels or {})


def _data_plane(paths: Paths, runner: Runner, watch: NftWatch) -> DataPlane:
    # Not there at all on other systems than Linux; and many hosts never have such a network.
    from carmel.network.host.hostdataplane import HostDataPlane

    return HostDataPlane(runner, paths.network_runtime, paths.networks, watch=watch)
