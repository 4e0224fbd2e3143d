"""NICs in software on a network that a SmartNIC switches: the host keeps the function, and all else is as ever."""

from __future__ import annotations

import pytest

from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.ports import NicPlan
from carmel.errors import Refused
from carmel.network.names import function_tap_name
from carmel.resources.port import DataPlane
from tests.fakes.nic import FakeNic
from tests.fakes.pcibus import NET_DRIVER, index_of
from tests.unit.controllers.offload.test_functions_of_vms import start
from tests.unit.controllers.offload.world import LAN, OffloadWorld

ADDRESS, MAC = "0000:01:00.0", "52:54:00:ca:01:00"
TAP = function_tap_name("uid-web", "eth0")


async def in_software(world: OffloadWorld, vm: str = "web") -> NicPlan:
    plan = await world.plan(vm, f"uid-{vm}", dataPlane="Host")
    close_descriptors([plan])
    return plan


async def test_the_function_is_plugged_in_on_the_nic_and_stays_the_hosts(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        plan = await in_software(world)
        assert (plan.config.function, plan.config.mac, plan.config.netdev["type"]) == (None, MAC, "tap")
        assert (plan.status.data_plane, plan.status.function, plan.status.mac) == (DataPlane.HOST, "pf0vf0", MAC)
        assert world.bus.driver(ADDRESS) == NET_DRIVER
        assert world.taps.joined == {TAP: index_of("enp1s0")}
        assert await nic.bound("web-eth0") == "pf0vf0"
        # Who switches is the NIC: to the Port it is a function as any.
        status = (await world.port("web-eth0"))["status"]
        assert (status["dataPlane"], status["smartNIC"], status["function"]) == ("SmartNIC", "dpu", "pf0vf0")
        # A look that came while the driver was probed anew saw none: the kernel's events, which this bus has not, tell.
        world.controller.host_changed()
        plugged = ("Plugged", NET_DRIVER)
        await world.functions(lambda known: (known["pf0vf0"]["state"], known["pf0vf0"].get("driver")) == plugged)

        await world.nics.release("uid-web")
        assert world.taps.joined == {}
        assert await nic.bound("web-eth0") is None
        await world.functions(lambda known: known["pf0vf0"]["state"] == "Free")


async def test_there_and_back_with_the_same_function(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        assert (await world.plan("web", "uid-web")).config.function == ADDRESS
        await world.nics.release("uid-web")
        assert (await in_software(world)).config.mac == MAC
        assert world.bus.driver(ADDRESS) == NET_DRIVER
        await world.nics.release("uid-web")
        plan = await world.plan("web", "uid-web")
        assert (plan.config.function, plan.config.mac, plan.config.descriptors) == (ADDRESS, MAC, ())
        assert plan.status.data_plane is DataPlane.SMART_NIC
        assert (world.bus.driver(ADDRESS), world.taps.joined) == ("vfio-pci", {})


async def test_the_driver_asks_for_the_mac_address_after_the_nic_gave_it(world: OffloadWorld, nic: FakeNic) -> None:
    """Also where the kernel's own driver has had the function all the time."""
    async with world.daemon():
        await start(world, nic, "web")
        await in_software(world)
        probes = [path for path, text in world.bus.written if path.endswith("drivers_probe") and text == ADDRESS]
        assert len(probes) == 1
        assert not any(path.endswith("driver_override") for path, _ in world.bus.written)


async def test_a_daemon_that_was_killed_leaves_what_vms_have_and_removes_the_rest(
    world: OffloadWorld, nic: FakeNic
) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await in_software(world)
    world.taps.joined["cmfforgotten"] = 7
    async with world.daemon():
        assert set(world.taps.joined) == {TAP}
        # And it may be begun again from there.
        await world.links.wait("dpu", lambda view: bool(view.ports), 20)
        await in_software(world)
        await world.nics.release("uid-web")
        assert world.taps.joined == {}


async def test_a_nic_that_is_away_keeps_the_function_but_nothing_stays_joined(
    world: OffloadWorld, nic: FakeNic
) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        await in_software(world)
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        await world.nics.release("uid-web")
        assert world.taps.joined == {}
        assert (await world.port("web-eth0"))["status"]["function"] == "pf0vf0"


async def test_what_lost_its_function_is_told_until_it_is_plugged_anew(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await start(world, nic, "web")
        nics = [(await in_software(world)).status]
        assert list(await world.nics.software.lost("uid-web", nics)) == []
        # The kernel removes it with the function's interface.
        world.taps.joined.clear()
        assert list(await world.nics.software.lost("uid-web", nics)) == ["eth0"]
        assert await world.nics.software.to_look_at() == ["uid-web"]
        await world.nics.release("uid-web")
        assert await world.nics.software.to_look_at() == []
        again = [(await in_software(world)).status]
        assert list(await world.nics.software.lost("uid-web", again)) == []
        # Of one that is passed through there is none to lose.
        await world.nics.release("uid-web")
        passed = [(await world.plan("web", "uid-web")).status]
        assert list(await world.nics.software.lost("uid-web", passed)) == []


async def test_a_kernel_that_does_not_join_it(world: OffloadWorld, nic: FakeNic) -> None:
    world.taps.refusal = Refused("this kernel has no macvtap", code="KernelLacksFeature")
    async with world.daemon():
        await start(world, nic, "web")
        with pytest.raises(Refused) as caught:
            await in_software(world)
        assert caught.value.code == "KernelLacksFeature"
        await world.nics.release("uid-web")
        assert await nic.bound("web-eth0") is None


async def test_a_driver_that_makes_no_interface(
    world: OffloadWorld, nic: FakeNic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carmel.smartnic.vfio._INTERFACE_SECONDS", 0.2)
    async with world.daemon():
        await start(world, nic, "web")
        world.bus.functions[ADDRESS].mac = None
        with pytest.raises(Refused) as caught:
            await in_software(world)
        assert (caught.value.code, caught.value.message) == (
            "FunctionNotBound",
            f"PCI function {ADDRESS} cannot be given to the kernel: its driver makes no interface of it",
        )


async def test_the_hosts_own_network_gives_no_function(world: OffloadWorld) -> None:
    async with world.daemon():
        with pytest.raises(AssertionError):
            await world.plan("web", "uid-web", {**LAN, "dataPlane": "Host"}, dataPlane="Host")
        with pytest.raises(Refused) as caught:
            await world.plan("web", "uid-web", {**LAN, "dataPlane": "Host"}, dataPlane="SmartNIC")
        assert caught.value.code == "NotOffloaded"
