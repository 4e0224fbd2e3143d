"""VMs on networks that their host switches: Ports, taps, and what becomes of them. On a data plane in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from carmel.controllers.network.plans import interface_of
from carmel.controllers.runtime import Key, find_condition
from carmel.errors import Refused
from carmel.hypervisor.machine import MachineState
from carmel.network.dataplane import PortCount, Rate
from carmel.network.host.kernel import Link
from carmel.paths import Paths
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT, Port
from carmel.resources.virtualmachine import VirtualMachine
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.hypervisor import World
from tests.stores import open_store
from tests.unit.controllers.virtualmachine.hosts import Host, message, reason

INNER = {"provider": "nat", "nat": {"subnet": "10.8.0.0/29"}}
LAN = {"provider": "bridge", "bridge": {"uplinks": ["eth1"], "vlan": 7}}
NIC = {"name": "eth0", "networkRef": {"name": "inner"}}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path, "default", "other") as store:
        plane = FakeDataPlane(Link("lo", 1, loopback=True), Link("eth1", 2), now=clock.now)
        made = Host(store, World(paths, clock.now), clock, plane=plane)
        await made.start()
        for name, spec in (("inner", INNER), ("lan", LAN)):
            await store.create(NETWORK, {"metadata": {"name": name}, "spec": spec})
        yield made
        await made.stop()
        await plane.aclose()
        for machine in made.world.machines.values():
            machine.close()


def plane(host: Host) -> FakeDataPlane:
    assert host.plane is not None
    return host.plane


async def port(host: Host, name: str = "w-eth0") -> Port:
    await host.quiet()
    return await host.ports.get(Key("default", name))


async def vm(host: Host, name: str = "w") -> VirtualMachine:
    await host.quiet()
    return await host.vms.get(Key("default", name))


def condition(one: Port, type_: str) -> tuple[str, str]:
    found = find_condition(one.status, type_)
    assert found is not None
    return found.status, found.reason


async def test_a_vm_is_plugged_in_by_its_start(host: Host) -> None:
    await host.create(networks=[NIC], cpu={"count": 2})
    await host.until(reason("Running"))
    one = await port(host)
    interface = interface_of(one)
    [nic] = host.machine.config.nics
    assert (nic.netdev["type"], nic.queues, nic.mac, nic.mtu) == ("tap", 2, one.spec.mac, 1500)
    assert nic.netdev["fds"] == ":".join(map(str, nic.descriptors))
    assert len(nic.descriptors) == 2
    [planned] = plane(host).ports.values()
    [address] = one.spec.addresses or []
    assert planned.addresses == (IPv4Address(address),)
    status = one.status
    assert (status.interface, status.addresses, status.data_plane) == (interface, [address], "Host")
    assert (condition(one, "Accepted"), condition(one, "Ready")) == (("True", "Accepted"), ("True", "Attached"))
    running = await vm(host)
    assert running.status.addresses == [address]
    assert one.metadata.labels == running.metadata.labels == {"carmel.dev/host": "host"}
    assert [owner.uid for owner in one.metadata.owner_references or []] == [running.metadata.uid]


async def test_a_guest_is_told_the_mtu_of_its_network(host: Host) -> None:
    """Nothing else does on a network without DHCP of ours: what is larger would vanish without a word."""
    spec = {"provider": "bridge", "bridge": {"uplinks": ["eth1"], "vlan": 8}, "mtu": 1400}
    await host.store.create(NETWORK, {"metadata": {"name": "small"}, "spec": spec})
    await host.create(networks=[{"name": "eth0", "networkRef": {"name": "small"}}])
    await host.until(reason("Running"))
    assert [nic.mtu for nic in host.machine.config.nics] == [1400]


async def test_the_port_is_there_before_and_after_the_run(host: Host) -> None:
    await host.create(networks=[NIC], powerState="PoweredOff")
    before = await port(host)
    assert condition(before, "Ready") == ("False", "NotAttached")
    await host.set(powerState="PoweredOn")
    await host.until(reason("Running"))
    await host.set(powerState="PoweredOff", powerOffMode="Hard")
    await host.until(reason("PoweredOff"))
    after = await port(host)
    assert after.spec == before.spec
    assert (after.status.interface, after.status.addresses) == (None, None)
    assert condition(after, "Ready") == ("False", "NotAttached")
    assert plane(host).ports == {}


async def test_a_vm_that_ended_is_unplugged(host: Host) -> None:
    await host.create(networks=[NIC], restartPolicy="Never")
    await host.until(reason("Running"))
    host.machine.end(MachineState.SHUTDOWN)
    await host.until(reason("GuestShutdown"))
    await host.quiet()
    assert plane(host).ports == {}
    assert (await port(host)).status.interface is None


async def test_ports_go_with_their_vm(host: Host) -> None:
    made = await host.create(networks=[NIC])
    await host.until(reason("Running"))
    await host.vms.delete(made)
    await host.until_gone()
    await host.quiet()
    assert plane(host).ports == {}


async def test_a_restarted_daemon_goes_on(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    await host.quiet()
    await host.clock.advance(1)
    before = await port(host)
    plugged = dict(plane(host).ports)
    await host.restart()
    await host.clock.advance(60)
    after = await port(host)
    assert plane(host).ports == plugged
    assert after.metadata.resource_version == before.metadata.resource_version


async def test_what_the_switch_does_changes_without_a_restart(host: Host) -> None:
    nic = {"name": "eth0", "networkRef": {"name": "lan"}}
    await host.create(networks=[nic])
    await host.until(reason("Running"))
    assert (await port(host)).spec.vlan == 7
    changed = {"vlan": 9, "trunk": [11], "addresses": ["192.0.2.7"], "limits": {"egress": {"kbps": 500}}}
    await host.set(networks=[{**nic, **changed}])
    await host.quiet()
    [planned] = plane(host).ports.values()
    assert (planned.vlan, planned.trunk, planned.egress) == (9, (11,), Rate(500))
    assert planned.addresses == (IPv4Address("192.0.2.7"),)
    running = await vm(host)
    assert find_condition(running.status, "RestartRequired") is None
    assert running.status.addresses == ["192.0.2.7"]
    await host.set(networks=[{**nic, **changed, "queues": 4}])
    assert find_condition((await vm(host)).status, "RestartRequired") is not None


async def test_a_change_that_is_refused_leaves_what_there_is(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    before = dict(plane(host).ports)
    await host.set(networks=[{**NIC, "addresses": ["10.8.0.1"]}])
    one = await port(host)
    assert condition(one, "Accepted") == ("False", "InvalidAddress")
    assert condition(one, "Ready") == ("False", "InvalidAddress")
    assert plane(host).ports == before
    assert find_condition((await vm(host)).status, "Ready") is not None
    await host.set(networks=[NIC])
    assert condition(await port(host), "Ready") == ("True", "Attached")


async def test_a_port_that_is_deleted_under_a_running_vm_is_made_anew(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    before = await port(host)
    plugged = dict(plane(host).ports)
    await host.ports.delete(before)
    after = await port(host)
    assert after.metadata.uid != before.metadata.uid
    assert after.spec.mac == before.spec.mac
    assert set(plane(host).ports) == set(plugged)


async def test_somebody_elses_change_of_a_port_is_undone(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))

    def open_it(one: Port) -> None:
        one.spec.source_guard = False

    await host.ports.update(await port(host), open_it)
    assert (await port(host)).spec.source_guard
    [planned] = plane(host).ports.values()
    assert planned.source_guard


async def test_a_mac_address_is_given_once(host: Host) -> None:
    nic = {**NIC, "mac": "52:54:00:00:00:01"}
    await host.create("first", networks=[nic], powerState="PoweredOff")
    await host.quiet()
    await host.clock.advance(2)
    await host.create("second", networks=[nic])
    await host.quiet()
    second = await vm(host, "second")
    assert message(second) == (
        "Port second-eth0: the MAC address 52:54:00:00:00:01 is another port's of the network inner. "
        "Leave the mac out and let Carmel choose."
    )
    await host.vms.delete(await vm(host, "first"))
    await host.until_gone(Key("default", "first"))
    # What the garbage collector does.
    await host.ports.delete(await port(host, "first-eth0"))
    await host.until(reason("Running"), Key("default", "second"))


async def test_a_running_vm_does_not_get_what_another_has(host: Host) -> None:
    await host.create("first", networks=[{**NIC, "addresses": ["10.8.0.5"]}], powerState="PoweredOff")
    await host.quiet()
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    before = dict(plane(host).ports)
    await host.set(networks=[{**NIC, "addresses": ["10.8.0.5"]}])
    assert condition(await port(host), "Accepted") == ("False", "AddressInUse")
    assert condition(await port(host, "first-eth0"), "Accepted") == ("True", "Accepted")
    assert plane(host).ports == before


async def test_names_that_fall_together_are_told_apart(host: Host) -> None:
    await host.create("a", networks=[{**NIC, "name": "b-c"}])
    await host.until(reason("Running"), Key("default", "a"))
    await host.create("a-b", networks=[{**NIC, "name": "c"}])
    await host.until(reason("PortNameTaken"), Key("default", "a-b"))
    assert len(host.world.launches) == 1


async def test_a_forged_port_changes_nothing(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    real = await port(host)
    plugged = dict(plane(host).ports)
    forged = {**real.spec.to_json(), "sourceGuard": False, "addresses": ["10.8.0.6"]}
    for namespace in ("default", "other"):
        await host.store.create(PORT, {"metadata": {"name": "forged", "namespace": namespace}, "spec": forged})
    await host.quiet()
    # There, no such VM; here, one more than the VM has NICs.
    one = await host.ports.get(Key("other", "forged"))
    assert condition(one, "Accepted") == ("False", "NotOfAVM")
    assert one.status.interface is None
    assert await host.ports.find(Key("default", "forged")) is None
    assert plane(host).ports == plugged


async def test_a_full_network_says_so(host: Host) -> None:
    names = [f"vm{number}" for number in range(6)]
    for name in names:
        await host.create(name, networks=[NIC])
    await host.quiet()
    said = {name: message(await vm(host, name)) for name in names}
    [last] = [name for name in names if said[name]]
    assert said[last] == "all 5 addresses of 10.8.0.0/29 are in use. Make a network with a larger subnet."
    addresses = {one.spec.addresses[0] for one in await host.ports.list() if one.spec.addresses}
    assert len(addresses) == 5


async def test_what_its_network_cannot_do_is_refused(host: Host) -> None:
    await host.create(networks=[{**NIC, "forwards": [{"guestPort": 22}]}])
    vm = await host.until(reason("NotSupported"))
    assert message(vm) == (
        "network inner gives VMs addresses of their own: it has no forwards. "
        "Leave it out, or use a network of provider user."
    )
    assert plane(host).ports == {}


async def test_without_its_firewall_a_selected_vm_is_not_started(host: Host) -> None:
    host.gate = Refused("this kernel cannot track connections", code="NoBridgeTracking")
    await host.create(networks=[NIC])
    await host.until(reason("NoBridgeTracking"))
    assert host.world.launches == []
    assert plane(host).ports == {}


async def test_a_start_that_fails_leaves_no_port_plugged(host: Host) -> None:
    host.hypervisor.failure = Refused("QEMU does not want to", code="QEMUFailed")
    await host.create(networks=[NIC])
    await host.until(reason("QEMUFailed"))
    await host.quiet()
    assert plane(host).ports == {}
    assert (await port(host)).status.interface is None


async def test_counters_are_written_when_they_changed(host: Host) -> None:
    await host.create(networks=[NIC])
    await host.until(reason("Running"))
    one = await port(host)
    plane(host).counts[interface_of(one)] = PortCount(1, 100, 2, 200, 3)
    await host.clock.advance(31)
    counted = await port(host)
    assert counted.status.counters is not None
    assert counted.status.counters.to_json() == {
        "receivedPackets": 1, "receivedBytes": 100, "sentPackets": 2, "sentBytes": 200, "droppedPackets": 3,
    }  # fmt: skip
    quiet = counted.metadata.resource_version
    await host.clock.advance(120)
    assert (await port(host)).metadata.resource_version == quiet
