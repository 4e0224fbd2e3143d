"""What a host has to do with its SmartNICs, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from carmel.controllers.offload import Claims, FunctionDisks, FunctionNics, Links, Relays, SmartNICController
from carmel.controllers.offload.mirroring import Mirroring
from carmel.controllers.offload.nearness import Nearness
from carmel.controllers.offload.nicmetrics import nic_samples
from carmel.controllers.offload.reflecting import Reflecting
from carmel.controllers.offload.software import SoftwareNics
from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.runtime import Runtime, Sample
from carmel.network.host.functiontaps import FunctionTaps
from carmel.resources.host import HostEndpoint
from carmel.run import Runner
from carmel.smartnic.hostside import read_host_side
from carmel.smartnic.vfio import VfioFunctions


class Offload:
    """``nics`` is the source of NICs that are functions, ``disks`` of such disks, ``near`` says where placement should
    put their VMs. ``wake`` is told which VM to look at again, by its uid; ``endpoints_changed`` that ``endpoints`` are
    others."""

    def __init__(
        self,
        runtime: Runtime,
        runner: Runner,
        ledger: Ledger,
        relays: Relays,
        wake: Callable[[str], None],
        endpoints_changed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self.near = Nearness(runtime)
        self._claims = Claims(runtime)
        self._links = Links()
        self._relays = relays
        functions = VfioFunctions(runner)
        self._taps = FunctionTaps()
        self.nics = FunctionNics(
            self._claims, self._links, functions, SoftwareNics(self._taps), read_host_side, self._distances
        )
        self.disks = FunctionDisks(runtime, self._links, functions)
        self._controller = SmartNICController(
            runtime, self._links, self._claims, self.nics, self.disks, functions, read_host_side, relays, wake
        )
        Mirroring(runtime, self._links)
        Reflecting(runtime, self._links)
        relays.listen(endpoints_changed)

    async def begin(self) -> None:
        """Before any VM is looked at, for what VMs have is theirs."""
        await self._claims.load()
        await self.nics.begin()

    async def close(self) -> None:
        await self._links.close()
        await self._relays.close()
        await self._taps.aclose()

    def endpoints(self) -> list[HostEndpoint]:
        """Those of this host that lead to its NICs."""
        return self._relays.endpoints()

    def host_changed(self) -> None:
        """PCI functions came, went or changed their drivers."""
        self._controller.host_changed()

    async def nic_samples(self) -> list[Sample]:
        """What the NICs measure of themselves."""
        return await nic_samples(self._links)

    def _distances(self, uid: str) -> Mapping[int, int]:
        """From the nearest of the VM's NUMA nodes to each of the host's."""
        placement = self._ledger.placement(uid)
        hardware = self._ledger.ground.hardware
        found: dict[int, int] = {}
        for number in placement.memory_nodes if placement is not None else ():
            node = hardware.node(number)
            for other, distance in (node.distances if node is not None else {}).items():
                found[other] = min(distance, found.get(other, distance))
        return found
