"""What a SmartNIC switches with: the data plane, the firewall before it, and the controllers of networks and ports."""

from __future__ import annotations

from collections.abc import Iterator

from carmel.controllers.firewall import FirewallController
from carmel.controllers.firewall_ports import NicPorts
from carmel.controllers.nic.counting import PortCounting
from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.nic.networks import NicNetworkController, NicSwitch
from carmel.controllers.nic.ports import NicPortController
from carmel.controllers.nic.self_status import SelfStatus
from carmel.controllers.runtime import Runtime, Sample
from carmel.network.firewall import NftFirewall
from carmel.network.host.claim import Claim
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.paths import Paths
from carmel.run import Runner
from carmel.smartnic.models.model import SmartNicModel


class NicSwitching:
    """``begin`` before the controllers work, ``start`` when they do, ``stop`` when they have ended."""

    def __init__(
        self, runtime: Runtime, facts: NicFacts, model: SmartNicModel, itself: SelfStatus, paths: Paths, runner: Runner
    ) -> None:
        self._claim = Claim(paths.networks)
        self._plane = HostDataPlane(runner, paths.network_runtime, paths.networks)
        self._switch = NicSwitch(runtime, self._plane)
        NicNetworkController(runtime, self._switch)
        self._firewall = NftFirewall()
        firewall = FirewallController(runtime, self._firewall, NicPorts(runtime))
        ports = NicPortController(runtime, facts.name, itself, model, self._switch, firewall.prepare)
        self._counting = PortCounting(runtime, ports, self._switch)

    async def begin(self) -> None:
        """From the NIC's own store, without the host. What an earlier daemon made goes on as it is. Raises ``Refused``
        where another daemon switches."""
        self._claim.take()
        await self._switch.begin()

    def start(self) -> None:
        self._counting.start()

    async def stop(self) -> None:
        """Networks and ports stay, and the firewall's rules."""
        await self._counting.stop()
        self._firewall.close()
        await self._plane.aclose()
        self._claim.release()

    def metrics(self) -> Iterator[Sample]:
        return self._counting.metrics()
