"""Policies whose peers are VMs elsewhere: on the NIC those of the host's own networks, on the host those of the NIC."""

from __future__ import annotations

import asyncio
import ipaddress

from carmel.controllers.firewall import FirewallController
from carmel.controllers.firewall_ports import StorePorts
from carmel.controllers.runtime import Runtime
from carmel.network.firewall import Connection, PortKey
from carmel.resources.base import JsonObject
from carmel.resources.firewallpolicy import FIREWALL_POLICY, Action, Direction
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.smartnic.link import NicView
from tests.fakes.firewall import FakeFirewall
from tests.fakes.nic import FakeNic
from tests.fakes.quiet import quiet
from tests.unit.controllers.offload.test_mirroring import until_in_sync, until_there
from tests.unit.controllers.offload.world import LAN, OffloadWorld

ADDRESS = "10.0.0.9"


async def allow(world: OffloadWorld, app: str, peer: str) -> None:
    spec = {
        "vmSelector": {"matchLabels": {"app": app}},
        "ingress": [{"peers": [{"vmSelector": {"matchLabels": {"app": peer}}}]}],
    }
    await world.store.create(FIREWALL_POLICY, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})


async def make_own_network(world: OffloadWorld) -> None:
    await world.store.create(NETWORK, {"metadata": {"name": "own"}, "spec": {**LAN, "dataPlane": "Host"}})


async def until_addresses(world: OffloadWorld, *addresses: str) -> None:
    def holds(view: NicView) -> bool:
        port = view.objects["ports"].get(("default", "db-eth0"))
        return (port["spec"]["addresses"] if port else []) == list(addresses)

    await world.links.wait("dpu", holds, 20)


async def nothing_to_look_at(world: OffloadWorld) -> None:
    """So that what comes next is noticed for its own sake."""
    (mirror,) = [one for one in world.runtime._controllers if one.spec.name == "mirror"]
    async with asyncio.timeout(20):
        await quiet(world.runtime, world.store)
        while mirror._queue._delayed:
            await quiet(world.runtime, world.store)


async def offloaded_and_own(world: OffloadWorld, nic: FakeNic) -> None:
    """``web`` is on the SmartNIC, ``db`` on a network of the host's own; ``web`` may be reached by ``db`` alone."""
    await make_own_network(world)
    await world.make_port("web", "uid-web")
    await world.make_port("db", "uid-db", network="own")
    await world.tell_port(world.store, "db-eth0", dataPlane="Host", addresses=[ADDRESS])
    await allow(world, "web", "db")
    await world.join(nic)


async def test_a_nic_that_trusts_its_host_follows_the_addresses_of_peers(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.trust("Full")
    async with world.daemon():
        await offloaded_and_own(world, nic)
        await until_there(world, "ports", "db-eth0")
        await until_in_sync(world)
        there = (await nic.store.get(PORT, "default", "db-eth0")).json()
        assert (there["spec"]["remote"], there["spec"]["addresses"]) == (True, [ADDRESS])
        assert there["metadata"]["labels"]["app"] == "db"
        # It has another now, and then it is off.
        await nothing_to_look_at(world)
        await world.tell_port(world.store, "db-eth0", addresses=["10.0.0.10"])
        await until_addresses(world, "10.0.0.10")
        await world.tell_port(world.store, "db-eth0", addresses=None)
        await until_there(world, "ports", "db-eth0", there=False)


async def test_a_nic_that_does_not_is_said_to_be_stale(world: OffloadWorld, nic: FakeNic) -> None:
    """Networks, policies and ports were made by its administrators; an address changes."""
    async with world.daemon():
        await offloaded_and_own(world, nic)
        found = await until_in_sync(world, "False")
        assert found["message"].endswith(
            "create Network lan, create Port default/db-eth0, create Port default/web-eth0"
        )
        await nic.trust("Full")
        await until_there(world, "ports", "web-eth0")
        await until_in_sync(world)
        await nic.trust("Restricted")
        await world.links.wait("dpu", lambda view: not view.mirrored, 20)
        await world.tell_port(world.store, "db-eth0", addresses=["10.0.0.10"])
        found = await until_in_sync(world, "False")
        assert found["message"].endswith("update Port default/db-eth0")
        assert (await nic.store.get(PORT, "default", "db-eth0")).json()["spec"]["addresses"] == [ADDRESS]


async def test_a_remote_port_is_none_that_a_function_can_be_plugged_into(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.make_port("web-eth0", "uid-web", remote=True, addresses=[ADDRESS])
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await world.make_port("web", "uid-web")

        def is_refused(found: JsonObject) -> bool:
            conditions = (found.get("status") or {}).get("conditions") or ()
            return any((one["type"], one["reason"]) == ("Accepted", "NoPortOnNIC") for one in conditions)

        await world.until(PORT, "web-eth0", is_refused, "default")
        assert world.links.view("dpu").ports == {}


async def test_on_the_host_peers_have_the_addresses_that_the_nic_tells(world: OffloadWorld, nic: FakeNic) -> None:
    firewall = FakeFirewall()

    def with_a_firewall(runtime: Runtime) -> None:
        FirewallController(runtime, firewall, StorePorts(runtime))

    def decided() -> Action:
        asked = Connection(ipaddress.ip_address(ADDRESS), 6, 443)
        return firewall.connect(PortKey("default", "db-eth0"), Direction.INGRESS, asked).action

    async with world.daemon(with_a_firewall):
        await make_own_network(world)
        metadata = {"name": "db", "namespace": "default", "labels": {"app": "db"}}
        spec = {"memory": {"size": "128Mi"}}
        owner = (await world.store.create(VIRTUAL_MACHINE, {"metadata": metadata, "spec": spec})).uid
        await world.make_port("db", owner, network="own")
        await world.tell_port(world.store, "db-eth0", dataPlane="Host", interface="cmp1")
        await allow(world, "db", "web")
        await firewall.until(lambda: firewall.loaded is not None and decided() is Action.DENY)
        # Trusted no further than by default: what its ports have is all that the host asks.
        await world.join(nic)
        await world.ready()
        await nic.make_port("web-eth0", "uid-web")
        await world.make_port("web", "uid-web")
        for _start in range(2):
            await world.plan("web", "uid-web")
            await world.tell_port(nic.store, "web-eth0", addresses=[ADDRESS])
            await firewall.until(lambda: decided() is Action.ALLOW)
            # A VM that is off has no address that was learned.
            await world.nics.release("uid-web")
            await firewall.until(lambda: decided() is Action.DENY)
        await world.plan("web", "uid-web")
        await world.tell_port(nic.store, "web-eth0", addresses=[ADDRESS])
        await firewall.until(lambda: decided() is Action.ALLOW)
        # A NIC that is away takes nothing with it.
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        assert decided() is Action.ALLOW
