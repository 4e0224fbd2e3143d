"""A SmartNIC on its host: what is told of it, and what is said when it is not what it should be."""

from __future__ import annotations

from pathlib import Path

from carmel.client.objects import condition
from carmel.controllers.runtime import Key
from carmel.resources.core import SECRET
from carmel.resources.smartnic import SMART_NIC
from carmel.store.protocol import EventType
from tests.fakes.nic import LONG_AGO, FakeNic, running_nic
from tests.fakes.pcibus import NET_DRIVER
from tests.unit.controllers.offload.world import OffloadWorld, functions_of, ready_of


async def test_the_host_tells_what_the_nic_is_and_where_its_functions_are(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        found = await world.ready()
    status = found["status"]
    assert (status["serial"], status["model"], status["mode"], status["trust"]) == (
        "MT-1",
        "emulated",
        "DPU",
        "Restricted",
    )
    assert status["host"] == {"name": "server-1"}
    assert functions_of(found)["pf0vf1"] == {
        "id": "pf0vf1",
        "kind": "net",
        "pciAddress": "0000:02:00.0",
        "mac": "52:54:00:ca:01:01",
        "representor": "pf0vf1",
        "iommuGroup": 11,
        "numaNode": 0,
        "driver": "virtio-pci",
        "state": "Free",
    }
    skew = next(one for one in status["conditions"] if one["type"] == "VersionSkew")
    assert (skew["status"], skew["reason"]) == ("False", "SameVersion")


async def test_it_is_written_only_when_something_changed(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        # Others say of it what they have to say first.
        before = await world.until(SMART_NIC, "dpu", lambda found: bool(condition(found, "InSync")))
        await world.controller.reconcile(Key(None, "dpu"))
        after = (await world.store.get(SMART_NIC, None, "dpu")).json()
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_another_version_is_said(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.tell(carmelVersion="9.9.9", temperature=60)
    async with world.daemon():
        await world.join(nic)
        found = await world.ready()
    skew = next(one for one in found["status"]["conditions"] if one["type"] == "VersionSkew")
    assert (skew["status"], skew["reason"]) == ("True", "VersionsDiffer")
    assert "9.9.9" in skew["message"]


async def test_an_expired_certificate(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic, keys=nic.invite(LONG_AGO))
        found = await world.ready(status="False", reason="HostCertificateExpired")
        assert "invite" in ready_of(found)["message"]
        # A new invitation is taken as soon as it is applied.
        secret = (await world.store.get(SECRET, "carmel-system", "smartnic-dpu")).json()
        secret["data"] = nic.invite()
        await world.store.replace(SECRET, secret)
        await world.ready()


async def test_without_credentials_it_says_whose_they_are(world: OffloadWorld) -> None:
    async with world.daemon():
        await world.store.create(SMART_NIC, {"metadata": {"name": "a"}})
        await world.ready("a", status="False", reason="NoAddress")
        spec = {"address": "127.0.0.1:1", "credentialsSecretRef": {"name": "none"}}
        await world.store.create(SMART_NIC, {"metadata": {"name": "b"}, "spec": spec})
        found = await world.ready("b", status="False", reason="WaitingForSecret")
    assert "Secret none" in ready_of(found)["message"]


async def test_a_nic_that_claims_anothers_serial_is_not_used(world: OffloadWorld, nic: FakeNic, tmp_path: Path) -> None:
    async with running_nic(tmp_path / "liar", functions=(0,), serial="MT-1") as liar, world.daemon():
        await world.join(nic)
        await world.ready()
        await world.join(liar, "other")
        found = await world.ready("other", status="False", reason="SerialInUse")
        assert ready_of(found)["message"].startswith("SmartNIC dpu has serial number MT-1 already")
        assert functions_of(found) == {}
        await world.ready()


async def test_another_nic_in_its_place_is_not_taken_for_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await nic.tell(serial="MT-9", functions=[])
        found = await world.ready(status="False", reason="SerialChanged")
        # What it was stays to be seen.
        assert found["status"]["serial"] == "MT-1"
        assert len(functions_of(found)) == 2
        await nic.tell(serial="MT-1")
        await world.ready()


async def test_a_nic_whose_clock_is_in_2001_is_a_nic(world: OffloadWorld, nic: FakeNic) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2001-01-01T00:00:00Z"}
    await nic.tell(conditions=[ready])
    async with world.daemon():
        await world.join(nic)
        await world.ready()


async def test_a_plain_nic_offers_nothing(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.tell(mode="NIC")
    async with world.daemon():
        await world.join(nic)
        await world.ready(status="False", reason="NotInDPUMode")


async def test_a_nic_that_is_away_is_said_to_be_and_comes_back(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await nic.stop()
        found = await world.ready(status="False", reason="NICUnreachable")
        assert len(functions_of(found)) == 2
        await nic.start()
        await world.ready()


async def test_a_function_in_a_shared_group_is_refused(world: OffloadWorld, nic: FakeNic) -> None:
    world.bus.add("0000:02:00.1", mac="52:54:00:00:00:77", name="enp2s0f1", group=11)
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        functions = await world.functions(lambda known: known["pf0vf1"]["state"] == "Refused")
    assert "0000:02:00.1" in functions["pf0vf1"]["message"]
    assert functions["pf0vf0"]["state"] == "Free"


async def test_a_function_that_is_plugged_into_the_machine_later_is_found(world: OffloadWorld, nic: FakeNic) -> None:
    world.bus.remove("0000:02:00.0")
    async with world.daemon():
        await world.join(nic)
        await world.functions(lambda known: bool(known) and known["pf0vf1"]["state"] == "Missing")
        world.bus.add("0000:07:00.0", mac="52:54:00:ca:01:01", name="enp7s0", group=17)
        world.controller.host_changed()
        found = await world.functions(lambda known: known["pf0vf1"]["state"] == "Free")
    assert found["pf0vf1"]["pciAddress"] == "0000:07:00.0"


async def test_a_deleted_smartnic_gives_its_functions_back(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.make_port("web-eth0", "uid-web")
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await world.make_port("web", "uid-web")
        await world.plan("web", "uid-web")
        assert world.bus.driver("0000:01:00.0") == "vfio-pci"
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Plugged")
        async with world.store.watch(SMART_NIC) as events:
            await world.store.delete(SMART_NIC, None, "dpu")
            # A VM has one: the kernel would wait for it for ever.
            found = await world.ready(status="False", reason="FunctionsInUse")
            assert "default/web-eth0" in ready_of(found)["message"]
            await world.nics.release("uid-web")
            async for event in events:
                if event.type is EventType.DELETED:
                    break
    assert world.bus.driver("0000:01:00.0") == NET_DRIVER
    assert await nic.bound("web-eth0") is None


async def test_the_relay_is_there_as_soon_as_it_is_known_where_the_nic_is(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        # Its credentials are missing: just then administrators need the way to it.
        spec = {"address": nic.address, "credentialsSecretRef": {"name": "none"}}
        await world.store.create(SMART_NIC, {"metadata": {"name": "dpu"}, "spec": spec})
        found = await world.ready(status="False", reason="WaitingForSecret")
        url = found["status"]["relay"]
        assert url.startswith("https://127.0.0.1:")
        assert [(one.name, one.url) for one in world.relays.endpoints()] == [("smartnic-dpu", url)]
    async with world.daemon():
        # The next daemon takes the same port: kubeconfigs stay good.
        await world.controller.reconcile(Key(None, "dpu"))
        assert world.relays.endpoints()[0].url == url
