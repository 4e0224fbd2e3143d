"""A SmartNIC without a kernel: its controllers on a real store, a data plane and a firewall that are fakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carmel.controllers.firewall import FirewallController
from carmel.controllers.firewall_ports import NicPorts
from carmel.controllers.nic.counting import PortCounting
from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.nic.networks import NicNetworkController, NicSwitch
from carmel.controllers.nic.ports import NicPortController
from carmel.controllers.nic.self_status import SelfStatus
from carmel.controllers.runtime import Key, Runtime, find_condition
from carmel.network.host.kernel import Link
from carmel.resources.base import Status
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, Port
from carmel.resources.smartnic import SMART_NIC, SmartNIC
from carmel.smartnic.models.emulated import shown_by
from carmel.smartnic.models.model import Shown
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.firewall import FakeFirewall
from tests.fakes.quiet import quiet

NAME = "nic-1"
NAT = {"provider": "nat", "nat": {"subnet": "10.77.0.0/24"}}
_LOOK_SECONDS = 0.05


class FakeModel:
    """The emulated NIC, which can be told to set MAC addresses and to be broken."""

    board = "emulated"
    serial = "lab-1"

    def __init__(self) -> None:
        self.sets_macs = False
        self.macs: dict[str, str] = {}
        self.problem: str | None = None

    async def look(self, links: Mapping[str, Link]) -> Shown:
        return Shown(problem=self.problem) if self.problem is not None else shown_by(links)

    async def set_mac(self, function: str, mac: str) -> None:
        self.macs[function] = mac


def representor(number: int) -> Link:
    return Link(f"pf0vf{number}", 10 + number, mac=f"52:54:00:ca:02:{number:02x}")


def mac(number: int) -> str:
    return f"52:54:00:ca:01:{number:02x}"


class SmartNic:
    """A daemon of a NIC on a store and a kernel that outlive it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.plane = FakeDataPlane(Link("lo", 1, loopback=True), *map(representor, range(3)), now=self.clock.now)
        self.firewall = FakeFirewall()
        self.model = FakeModel()
        self._open()

    def _open(self) -> None:
        self.runtime = Runtime(self.store, NAME, clock=self.clock)
        self.ports = self.runtime.resources(PORT, Port)
        self.networks = self.runtime.resources(NETWORK, Network)
        self.itself = SelfStatus(self.runtime, NicFacts(NAME, "Linux 6.1", "boot-1"), self.model, self._links)
        self.switch = NicSwitch(self.runtime, self.plane)
        NicNetworkController(self.runtime, self.switch)
        firewall = FirewallController(self.runtime, self.firewall, NicPorts(self.runtime))
        self.controller = NicPortController(self.runtime, NAME, self.itself, self.model, self.switch, firewall.prepare)
        self.counting = PortCounting(self.runtime, self.controller, self.switch)

    async def _links(self) -> Mapping[str, Link]:
        return dict(self.plane.links)

    async def start(self) -> None:
        await self.itself.ensure()
        await self.itself.refresh()
        await self.switch.begin()
        await self.runtime.start()
        await self.quiet()

    async def stop(self) -> None:
        await self.runtime.stop()

    async def restart(self) -> None:
        await self.stop()
        self._open()
        await self.start()

    async def quiet(self) -> None:
        """Links changed, as the kernel tells after each step; all that follows is done."""
        for _ in range(3):
            self.itself.look_again()
            await self.clock.advance(_LOOK_SECONDS)
            await quiet(self.runtime, self.store)

    # -- administrators -------------------------------------------------------------------------------------------
    async def make_network(self, name: str = "lan", **spec: Any) -> None:
        await self.store.create(NETWORK, {"metadata": {"name": name}, "spec": spec or NAT})
        await self.quiet()

    async def make_port(self, number: int, **spec: Any) -> Port:
        wanted = {
            "networkRef": {"name": "lan"},
            "vmRef": {"name": f"vm{number}"},
            "nic": "eth0",
            "owner": f"uid-{number}",
            "mac": mac(number),
            "addresses": [f"10.77.0.1{number}"],
            "function": f"pf0vf{number}",
        }
        metadata = {"name": f"p{number}", "namespace": "default"}
        await self.store.create(PORT, {"metadata": metadata, "spec": {**wanted, **spec}})
        return await self.port(number)

    async def set_port(self, number: int, **spec: Any) -> Port:
        def change(one: Port) -> None:
            one.spec = one.spec.model_validate({**one.spec.to_json(), **spec})

        await self.ports.update(await self.ports.get(Key("default", f"p{number}")), change)
        return await self.port(number)

    # -- what is so -----------------------------------------------------------------------------------------------
    async def port(self, number: int) -> Port:
        await self.quiet()
        return await self.ports.get(Key("default", f"p{number}"))

    async def object(self) -> SmartNIC:
        await self.quiet()
        return await self.runtime.resources(SMART_NIC, SmartNIC).get(Key(None, NAME))


def ready(obj: Port | Network | SmartNIC) -> tuple[str, str]:
    assert isinstance(obj.status, Status)
    found = find_condition(obj.status, "Ready")
    assert found is not None
    return found.status, found.reason


def message(obj: Port | Network | SmartNIC) -> str:
    assert isinstance(obj.status, Status)
    found = find_condition(obj.status, "Ready")
    assert found is not None
    return found.message
