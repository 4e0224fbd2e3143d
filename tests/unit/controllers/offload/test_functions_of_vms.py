"""VMs get functions of a SmartNIC, each its own, and give them back: whatever happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from carmel.smartnic.link import NicView
from tests.fakes.nic import FakeNic, mac_of, running_nic
from tests.fakes.pcibus import NET_DRIVER
from tests.unit.controllers.offload.world import LAN, OffloadWorld, ready_of


async def start(world: OffloadWorld, nic: FakeNic, *vms: str) -> None:
    """A NIC that is joined, and the Ports of these VMs on both sides; the host knows of the NIC's."""
    await world.join(nic)
    await world.ready()
    for vm in vms:
        await nic.make_port(f"{vm}-eth0", f"uid-{vm}")
        await world.make_port(vm, f"uid-{vm}")
    await world.links.wait("dpu", lambda view: all(("default", f"{vm}-eth0") in view.ports for vm in vms), 20)


async def until_bound(world: OffloadWorld, name: str, function: str | None) -> None:
    """Until the NIC says that this is to be plugged into its port."""

    def is_so(view: NicView) -> bool:
        port = view.ports.get(("default", name))
        return port is not None and port.bound == function

    await world.links.wait("dpu", is_so, 20)


async def test_a_vm_gets_a_function_that_is_plugged_in_on_the_nic(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        plan = await world.plan("web", "uid-web")
        assert (plan.config.function, plan.config.mac, plan.config.netdev) == ("0000:01:00.0", "52:54:00:ca:01:00", {})
        assert (plan.status.network_name, plan.status.mac) == ("lan", "52:54:00:ca:01:00")
        assert world.bus.driver("0000:01:00.0") == "vfio-pci"
        assert await nic.bound("web-eth0") == "pf0vf0"
        status = (await world.port("web-eth0"))["status"]
        assert (status["dataPlane"], status["smartNIC"], status["function"]) == ("SmartNIC", "dpu", "pf0vf0")
        # It is this VM's before it has its driver; the kernel's events would tell of that, which this bus has not.
        world.controller.host_changed()
        plugged = ("Plugged", "vfio-pci")
        functions = await world.functions(
            lambda known: (known["pf0vf0"]["state"], known["pf0vf0"].get("driver")) == plugged
        )
        assert functions["pf0vf0"]["owner"] == {"kind": "Port", "namespace": "default", "name": "web-eth0"}

        await world.nics.release("uid-web")
        assert await nic.bound("web-eth0") is None
        assert "function" not in (await world.port("web-eth0"))["status"]
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Free")


async def test_what_has_a_functions_address_now_is_not_taken_for_it(world: OffloadWorld, nic: FakeNic) -> None:
    """As after a boot of the host with one card more: its status is of before."""
    async with world.daemon():
        await start(world, nic, "web")
        world.bus.remove("0000:01:00.0")
        world.bus.add("0000:01:00.0", mac="52:54:00:00:00:77", name="enp9s0", group=10)
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.code == "FunctionMoved"
        assert "another MAC address" in caught.value.message
        assert world.bus.driver("0000:01:00.0") == NET_DRIVER
        # It is looked for, and the VM told.
        world.bus.add("0000:09:00.0", mac=mac_of(0), name="enp10s0", group=19)
        world.controller.host_changed()
        assert await world.next_woken() == "uid-web"
        await world.functions(lambda known: known["pf0vf0"].get("pciAddress") == "0000:09:00.0")
        assert (await world.plan("web", "uid-web")).config.function == "0000:09:00.0"


async def test_two_vms_never_have_the_same(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web", "db", "third")
        plans = await asyncio.gather(world.plan("web", "uid-web"), world.plan("db", "uid-db"))
        assert {plan.config.function for plan in plans} == {"0000:01:00.0", "0000:02:00.0"}
        with pytest.raises(Unavailable) as caught:
            await world.plan("third", "uid-third")
        assert caught.value.code == "NoFreeFunction"
        assert caught.value.message == "SmartNIC dpu has no free function: all 2 functions are in use"
        assert world.woken.empty()
        await world.nics.release("uid-db")
        await world.functions(lambda known: known["pf0vf1"]["state"] == "Free")
        # Who waits is told that there is one now.
        assert await world.next_woken() == "uid-third"
        assert (await world.plan("third", "uid-third")).config.function == "0000:02:00.0"


async def test_a_vm_keeps_its_mac_address_over_its_starts(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web", "db")
        await world.plan("web", "uid-web")
        first = await world.plan("db", "uid-db")
        await world.nics.release("uid-web")
        await world.nics.release("uid-db")
        again = await world.plan("db", "uid-db")
        assert again.config.mac == first.config.mac == "52:54:00:ca:01:01"


async def test_a_port_that_the_nic_lacks_is_waited_for(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await world.join(nic)
        await world.ready()
        await world.make_port("web", "uid-web")
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.code == "NoPortOnNIC"
        assert caught.value.hint == "its administrator makes it: carmel smartnic sync dpu"
        # Nothing was done to the function.
        assert world.bus.driver("0000:01:00.0") == NET_DRIVER
        await world.nics.release("uid-web")
        await nic.make_port("web-eth0", "uid-web")
        assert await world.next_woken() == "uid-web"
        assert (await world.plan("web", "uid-web")).config.function == "0000:01:00.0"


async def test_without_a_smartnic_it_says_so(world: OffloadWorld) -> None:
    async with world.daemon():
        await world.make_port("web", "uid-web")
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.message == "network lan is switched by a SmartNIC, and this host has no SmartNIC"
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web", {**LAN, "smartNICRef": {"name": "other"}})
        assert caught.value.message.endswith("there is no SmartNIC other")
        with pytest.raises(Unavailable) as caught:
            await world.plan("none", "uid-none")
        assert caught.value.code == "WaitingForPort"


async def test_a_nic_that_is_away_is_what_is_said(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.code == "WaitingForSmartNIC"
        assert "cannot be reached" in caught.value.message


async def test_a_mac_address_that_no_function_has(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        with pytest.raises(Refused) as caught:
            await world.plan("web", "uid-web", mac="52:54:00:00:00:99")
        assert (caught.value.code, caught.value.field) == ("MACNotPossible", "spec.networks[0].mac")
        plan = await world.plan("web", "uid-web", mac="52:54:00:CA:01:01")
        assert plan.config.function == "0000:02:00.0"


async def test_one_nearer_to_the_vm_is_taken_first(world: OffloadWorld, nic: FakeNic) -> None:
    world.bus.remove("0000:02:00.0")
    world.bus.add("0000:02:00.0", mac="52:54:00:ca:01:01", name="enp2s0", group=11, node=1)
    world.distances = {0: 20, 1: 10}
    async with world.daemon():
        await start(world, nic, "web")
        await world.functions(lambda known: known["pf0vf1"].get("numaNode") == 1)
        assert (await world.plan("web", "uid-web")).config.function == "0000:02:00.0"


async def test_a_daemon_that_was_killed_finds_who_has_what(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web", "db")
        await world.plan("web", "uid-web")
    async with world.daemon():
        await world.ready()
        functions = await world.functions(lambda known: known["pf0vf0"]["state"] == "Plugged")
        assert functions["pf0vf0"]["owner"]["name"] == "web-eth0"
        assert (await world.plan("db", "uid-db")).config.function == "0000:02:00.0"
        assert await nic.bound("web-eth0") == "pf0vf0"
        # And it may be started again with what it has: the same, plugged in once more.
        assert (await world.plan("web", "uid-web")).config.function == "0000:01:00.0"


async def test_a_vm_that_ended_while_the_nic_was_away(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await world.plan("web", "uid-web")
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        await world.nics.release("uid-web")
        # On the NIC it is still plugged in: nobody else may have it yet.
        assert (await world.port("web-eth0"))["status"]["function"] == "pf0vf0"
        await nic.start()
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Free")
        assert await nic.bound("web-eth0") is None


async def test_what_is_plugged_for_nobody_is_unplugged(world: OffloadWorld, nic: FakeNic) -> None:
    await nic.make_port("old-eth0", "uid-old", function="pf0vf1")
    await nic.make_port("bare", "host", function="pf0vf0")
    async with world.daemon():
        await world.join(nic)
        await until_bound(world, "old-eth0", None)
        # A bare machine's port is its administrators'.
        assert await nic.bound("bare") == "pf0vf0"


async def test_a_port_that_was_made_anew_on_the_nic_is_plugged_again(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await world.plan("web", "uid-web")
        await nic.store.delete(PORT, "default", "web-eth0")
        await nic.make_port("web-eth0", "uid-web")
        await until_bound(world, "web-eth0", "pf0vf0")


async def test_a_port_that_is_deleted_leaves_nothing_plugged(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await world.plan("web", "uid-web")
        await world.store.delete(PORT, "default", "web-eth0")
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Free")
        await until_bound(world, "web-eth0", None)


async def test_a_nic_that_does_not_come_to_it(
    world: OffloadWorld, nic: FakeNic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carmel.controllers.offload.plugging.READY_SECONDS", 0.2)
    nic.plugs = False
    async with world.daemon():
        await start(world, nic, "web")
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.code == "PortNotReadyOnNIC"
        await world.nics.release("uid-web")
        assert await nic.bound("web-eth0") is None


async def test_a_kernel_that_does_not_give_it_leaves_the_nic_as_it_was(world: OffloadWorld, nic: FakeNic) -> None:
    world.bus.deaf.add("vfio-pci")
    async with world.daemon():
        await start(world, nic, "web")
        with pytest.raises(CarmelError) as caught:
            await world.plan("web", "uid-web")
        assert caught.value.code == "FunctionNotBound"
        # Nor does whatever else the NIC says plug it in.
        await world.nics.settle("dpu")
        assert await nic.bound("web-eth0") is None
        await world.nics.release("uid-web")
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Free")


async def test_the_network_may_name_the_smartnic(world: OffloadWorld, nic: FakeNic, tmp_path: Path) -> None:
    world.bus.add("0000:09:00.0", mac="52:54:00:ca:01:09", name="enp9s0", group=19)
    async with running_nic(tmp_path / "second", functions=(9,), serial="MT-2") as second, world.daemon():
        await start(world, nic, "web")
        await world.join(second, "other")
        await world.ready("other")
        with pytest.raises(Unavailable) as caught:
            await world.plan("web", "uid-web", {**LAN, "smartNICRef": {"name": "other"}})
        assert caught.value.hint == "its administrator makes it: carmel smartnic sync other"
        await second.make_port("web-eth0", "uid-web")
        await world.links.wait("other", lambda view: bool(view.ports), 20)
        plan = await world.plan("web", "uid-web", {**LAN, "smartNICRef": {"name": "other"}})
        assert plan.config.function == "0000:09:00.0"
        # It goes back to the first when that is named: what it had is unplugged before.
        plan = await world.plan("web", "uid-web", {**LAN, "smartNICRef": {"name": "dpu"}})
        assert plan.config.function == "0000:01:00.0"
        assert await second.bound("web-eth0") is None
        assert ready_of((await world.store.get(SMART_NIC, None, "other")).json())["status"] == "True"
