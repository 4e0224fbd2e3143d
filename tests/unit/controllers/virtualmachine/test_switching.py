"""A NIC changes over while its VM runs: from a SmartNIC's function to the host's own switch, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest

from carmel.controllers.runtime import Key, Runtime, condition, find_condition, set_conditions
from carmel.controllers.virtualmachine import ports
from carmel.hypervisor.config import NicConfig
from carmel.hypervisor.devices import DeviceKind
from carmel.network.host.kernel import Link
from carmel.paths import Paths
from carmel.resources.base import Condition, JsonObject
from carmel.resources.core import EVENT
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, DataPlane, Port
from carmel.resources.virtualmachine import NetworkInterfaceStatus, VirtualMachine
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.hypervisor import World
from tests.stores import open_store
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, reason

LAN = Key(None, "lan")
PORT_KEY = Key("default", "w-eth0")
FUNCTION, MAC = "0000:01:00.0", "52:54:00:ca:01:00"
OFFLOADED: JsonObject = {"provider": "bridge", "bridge": {"uplinks": ["p0"]}, "dataPlane": "SmartNIC"}
HOSTED: JsonObject = {"provider": "bridge", "bridge": {"uplinks": ["eth9"]}, "dataPlane": "Host"}


class Functions:
    """One function, as ``offload`` gives it: its Port says that it has it."""

    def __init__(self, runtime: Runtime) -> None:
        self._ports = runtime.resources(PORT, Port)
        self.given: set[str] = set()

    def serves(self, wanted: ports.WantedNic) -> bool:
        return wanted.offloaded

    async def plan(self, vm: ports.VmOfNics, wanted: Sequence[ports.WantedNic]) -> Sequence[ports.NicPlan]:
        await self._say("pf0vf0")
        self.given.add(vm.uid)
        plane = wanted[0].data_plane
        status = NetworkInterfaceStatus(name="eth0", network_name="lan", mac=MAC, data_plane=plane, function="pf0vf0")
        passed = plane is DataPlane.SMART_NIC
        config = NicConfig("eth0", MAC, {} if passed else {"type": "user"}, function=FUNCTION if passed else None)
        return [ports.NicPlan(config, status)]

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        if uid in self.given and "eth0" not in keep:
            self.given.discard(uid)
            await self._say(None)

    async def _say(self, function: str | None) -> None:
        def change(one: Port) -> None:
            one.status.function = function
            one.status.data_plane = DataPlane.SMART_NIC

        await self._ports.update_status(await self._ports.get(PORT_KEY), change)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        plane = FakeDataPlane(Link("lo", 1, loopback=True), Link("eth9", 2), now=clock.now)
        made = Host(store, World(paths, clock.now), clock, plane=plane, functions=Functions)
        await made.start()
        await store.create(NETWORK, {"metadata": {"name": "lan"}, "spec": OFFLOADED})
        yield made
        await made.stop()
        await plane.aclose()
        for machine in made.world.machines.values():
            machine.close()


async def nic_answers(host: Host) -> None:
    """What the offload controllers say of Network and Port when the SmartNIC has both."""
    networks = host.runtime.resources(NETWORK, Network)
    await networks.update_status(
        await networks.get(LAN), lambda one: set_conditions(one.status, _said(one, "Ready"), NOW)
    )
    await host.quiet()
    if (port := await host.ports.find(PORT_KEY)) is not None:
        await host.ports.update_status(port, lambda one: set_conditions(one.status, _said(one, "Accepted"), NOW))
        await host.quiet()


def _said(one: Network | Port, type_: str) -> list[Condition]:
    return [condition(type_, "True", "Told", generation=one.metadata.generation)]


NOW = FakeClock().now()


async def started(host: Host) -> VirtualMachine:
    await nic_answers(host)
    await host.create(networks=[{"name": "eth0", "networkRef": {"name": "lan"}}])
    await host.quiet()
    await nic_answers(host)
    return await host.until(reason("Running"))


async def switch(host: Host, spec: JsonObject) -> None:
    stored = (await host.store.get(NETWORK, None, "lan")).json()
    stored["metadata"].pop("resourceVersion")
    await host.store.replace(NETWORK, {**stored, "spec": spec})
    await host.quiet()


async def planes(host: Host) -> list[tuple[str, DataPlane | None]]:
    vm = await host.vms.get(KEY)
    return [(one.mac, one.data_plane) for one in vm.status.networks or []]


async def functions(host: Host) -> list[str | None]:
    vm = await host.vms.get(KEY)
    return [one.function for one in vm.status.networks or []]


async def told(host: Host) -> list[str]:
    found = [one.json() for one in (await host.store.list(EVENT)).items]
    return [one["message"] for one in found if one["reason"] in {"NICPlugged", "NICUnplugged"}]


async def test_to_the_host_and_back_while_it_runs(host: Host) -> None:
    await started(host)
    assert host.machine.config.nics[0].function == FUNCTION
    assert await planes(host) == [(MAC, DataPlane.SMART_NIC)]

    await switch(host, HOSTED)
    assert host.plane is not None
    assert {port.nic for port in host.plane.ports.values()} == {"eth0"}
    ((mac, plane),) = await planes(host)
    assert plane is DataPlane.HOST
    port = await host.ports.get(PORT_KEY)
    assert (port.status.function, port.status.data_plane, mac) == (None, DataPlane.HOST, port.spec.mac)
    # An emulated NIC's function has a MAC address of its own: the guest sees another now, and that is said.
    assert f"NIC eth0, whose MAC address is {mac} now: it was {MAC}" in await told(host)
    assert len(host.world.launches) == 1

    await switch(host, OFFLOADED)
    # It is the host's until the SmartNIC has what it needs.
    assert await planes(host) == [(mac, DataPlane.HOST)]
    await nic_answers(host)
    assert await planes(host) == [(MAC, DataPlane.SMART_NIC)]
    assert host.plane.ports == {}
    assert len(host.world.launches) == 1


async def test_nothing_is_pulled_out_before_the_other_is_ready(host: Host) -> None:
    await started(host)
    await switch(host, {**HOSTED, "bridge": {"uplinks": ["none"]}})
    assert await planes(host) == [(MAC, DataPlane.SMART_NIC)]
    vm = await host.vms.get(KEY)
    waiting = find_condition(vm.status, "NICsPlugged")
    assert waiting is not None
    assert waiting.message.startswith("eth0: Network lan is not ready")
    ready = find_condition(vm.status, "Ready")
    assert ready is not None
    assert ready.status == "True"


async def say(host: Host, plane: str | None) -> None:
    """In the VM's spec, of its NIC."""
    nic: JsonObject = {"name": "eth0", "networkRef": {"name": "lan"}, **({"dataPlane": plane} if plane else {})}
    await host.set(networks=[nic])
    await host.quiet()


async def test_one_nic_alone_becomes_software_and_back_while_it_runs(host: Host) -> None:
    """Of its function: the SmartNIC goes on switching it, so the host's own switch has nothing to do with it."""
    await started(host)
    await say(host, "Host")
    assert await planes(host) == [(MAC, DataPlane.HOST)]
    plugged = host.machine.plugged[DeviceKind.NIC, "eth0"]
    assert isinstance(plugged, NicConfig)
    assert plugged.function is None
    assert await functions(host) == ["pf0vf0"]
    assert host.plane is not None
    assert host.plane.ports == {}
    await say(host, None)
    assert await planes(host) == [(MAC, DataPlane.SMART_NIC)]
    assert len(host.world.launches) == 1
    assert "NIC eth0" in (await told(host))[-1]


async def test_a_nic_that_lost_its_way_out_is_plugged_anew(host: Host) -> None:
    await started(host)
    await say(host, "Host")
    plugged = host.machine.plugged
    before = plugged[DeviceKind.NIC, "eth0"]
    host.lost = lambda: ["eth0"] if plugged.get((DeviceKind.NIC, "eth0")) is before else []
    host.controller.try_again((await host.vms.get(KEY)).metadata.uid or "")
    await host.quiet()
    assert (DeviceKind.NIC, "eth0") in plugged
    assert plugged[DeviceKind.NIC, "eth0"] is not before
    assert await planes(host) == [(MAC, DataPlane.HOST)]


async def test_in_software_on_the_hosts_network_it_follows_the_network(host: Host) -> None:
    """Whose ``dataPlane`` is Host at both ends: its function comes all the same."""
    await started(host)
    await switch(host, HOSTED)
    await say(host, "Host")
    assert host.plane is not None
    assert len(host.plane.ports) == 1
    await switch(host, OFFLOADED)
    await nic_answers(host)
    assert await planes(host) == [(MAC, DataPlane.HOST)]
    assert host.plane.ports == {}
    assert await functions(host) == ["pf0vf0"]


async def test_what_is_not_movable_says_how_it_becomes_so(host: Host) -> None:
    await started(host)
    host.machine.blockers = ["0000:01:00.0: VFIO device doesn't support migration"]
    await host.restart()
    await host.quiet()
    movable = find_condition((await host.vms.get(KEY)).status, "LiveMigratable")
    assert movable is not None
    assert movable.message.endswith(
        "NICs that are functions of a SmartNIC (eth0) are swapped for software ones while the VM runs: set their "
        "dataPlane in spec.networks to Host; the SmartNIC goes on switching them"
    )
