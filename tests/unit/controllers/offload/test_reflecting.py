"""The host's Networks and Ports say what the SmartNIC does for them: VMs start when they can, and say why not."""

from __future__ import annotations

from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT
from carmel.store.sqlite import SqliteStore
from tests.fakes.nic import FakeNic
from tests.unit.controllers.offload.world import LAN, OffloadWorld, conditions_of

ON_NIC: JsonObject = {"provider": "bridge", "bridge": {"uplinks": ["p0"]}}


async def make_network(nic: FakeNic, *, ready: bool = True) -> None:
    """As the NIC's own controller leaves it."""
    await nic.store.create(NETWORK, {"metadata": {"name": "lan"}, "spec": ON_NIC})
    one = {"type": "Ready", "status": str(ready), "reason": "Made" if ready else "NoUplink", "message": "p0 is away"}
    await tell(nic.store, {"backend": "linux-bridge", "conditions": [one]})


async def tell(store: SqliteStore, status: JsonObject) -> None:
    known = (await store.get(NETWORK, None, "lan")).json()
    known["status"] = status
    known["metadata"].pop("resourceVersion")
    await store.replace(NETWORK, known, subresource="status")


async def network(world: OffloadWorld, status: str, reason: str) -> JsonObject:
    def says(found: JsonObject) -> bool:
        ready = conditions_of(found).get("Ready", {})
        return (ready.get("status"), ready.get("reason")) == (status, reason)

    return await world.until(NETWORK, "lan", says)


async def port(world: OffloadWorld, name: str, kind: str, status: str, reason: str) -> JsonObject:
    def says(found: JsonObject) -> bool:
        one = conditions_of(found).get(kind, {})
        return (one.get("status"), one.get("reason")) == (status, reason)

    return await world.until(PORT, name, says, "default")


async def test_a_network_is_ready_when_the_nic_has_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        found = await network(world, "False", "WaitingForSmartNIC")
        assert conditions_of(found)["Accepted"]["status"] == "True"
        await world.join(nic)
        found = await network(world, "False", "NoNetworkOnNIC")
        assert "carmel smartnic sync dpu" in conditions_of(found)["Ready"]["message"]
        await make_network(nic, ready=False)
        found = await network(world, "False", "NoUplink")
        assert conditions_of(found)["Ready"]["message"] == "SmartNIC dpu: p0 is away"
        await tell(
            nic.store,
            {"backend": "linux-bridge", "conditions": [{"type": "Ready", "status": "True", "reason": "Made"}]},
        )
        found = await network(world, "True", "Made")
        assert found["status"]["backend"] == "linux-bridge"
        assert conditions_of(found)["Ready"]["observedGeneration"] == found["metadata"]["generation"]
        await nic.stop()
        await network(world, "False", "NICUnreachable")


async def test_a_port_is_accepted_when_the_nic_has_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.make_port("web", "uid-web")
        await port(world, "web-eth0", "Accepted", "False", "WaitingForSmartNIC")
        await world.join(nic)
        found = await port(world, "web-eth0", "Accepted", "False", "NoPortOnNIC")
        message = conditions_of(found)["Accepted"]["message"]
        assert message == (
            "SmartNIC dpu has no Port default/web-eth0. Its administrator makes it: carmel smartnic sync dpu."
        )
        await nic.make_port("web-eth0", "uid-web")
        found = await port(world, "web-eth0", "Accepted", "True", "Accepted")
        assert conditions_of(found)["Ready"]["reason"] == "NotAttached"


async def test_what_is_plugged_in_is_told_with_its_counters(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await nic.make_port("web-eth0", "uid-web")
        await world.make_port("web", "uid-web")
        await world.plan("web", "uid-web")
        found = await port(world, "web-eth0", "Ready", "True", "Plugged")
        assert found["status"]["interface"] == "cmp0123456789"
        assert (found["status"]["dataPlane"], found["status"]["mac"]) == ("SmartNIC", "52:54:00:ca:01:00")
        on_nic = (await nic.store.get(PORT, "default", "web-eth0")).json()
        on_nic["metadata"].pop("resourceVersion")
        counters = dict.fromkeys(("receivedPackets", "receivedBytes", "sentPackets", "sentBytes", "droppedPackets"), 7)
        on_nic["status"] |= {"counters": counters, "countedAt": "2001-01-01T00:00:00Z", "addresses": ["10.0.0.9"]}
        await nic.store.replace(PORT, on_nic, subresource="status")
        found = await world.until(PORT, "web-eth0", lambda one: "counters" in one["status"], "default")
        assert (found["status"]["counters"], found["status"]["addresses"]) == (counters, ["10.0.0.9"])
        # A NIC that is away is not asked, and what runs runs.
        await nic.stop()
        found = await port(world, "web-eth0", "Ready", "Unknown", "NICUnreachable")
        assert conditions_of(found)["Accepted"]["status"] == "True"
        assert (found["status"]["function"], found["status"]["counters"]) == ("pf0vf0", counters)
        await nic.start()
        await port(world, "web-eth0", "Ready", "True", "Plugged")
        await world.nics.release("uid-web")
        found = await port(world, "web-eth0", "Ready", "False", "NotAttached")
        assert "counters" not in found["status"]


async def test_the_hosts_own_networks_are_not_touched(world: OffloadWorld, nic: FakeNic) -> None:
    await world.store.create(NETWORK, {"metadata": {"name": "own"}, "spec": {**LAN, "dataPlane": "Host"}})
    spec = {
        "networkRef": {"name": "own"},
        "vmRef": {"name": "db"},
        "nic": "eth0",
        "owner": "uid-db",
        "mac": "52:54:00:00:00:02",
    }
    await world.store.create(PORT, {"metadata": {"name": "db-eth0", "namespace": "default"}, "spec": spec})
    async with world.daemon():
        await world.join(nic)
        await network(world, "False", "NoNetworkOnNIC")
        assert "status" not in (await world.store.get(NETWORK, None, "own")).json() or not conditions_of(
            (await world.store.get(NETWORK, None, "own")).json()
        )
        assert not conditions_of(await world.port("db-eth0"))
