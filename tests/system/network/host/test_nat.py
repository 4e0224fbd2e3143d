"""Networks of provider nat: a real DHCP client, a real outside."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from carmel.errors import Refused
from tests.system.network.host.lab import SUBNET, Lab, nat, port


async def test_dhcp_gives_each_vm_its_address_and_they_reach_one_another(lab: Lab) -> None:
    network = nat(mtu=1400)
    await lab.plane.ensure_network(network)
    one, other = await lab.boot(port("one", network)), await lab.boot(port("other", network))
    assert await one.dhcp() == one.port.addresses[0]
    assert await other.dhcp() == other.port.addresses[0]
    assert await one.reaches(SUBNET[1])
    assert await one.reaches(other.port.addresses[0])
    assert "mtu 1400" in (await one.space.run("ip", "link", "show", "eth0")).text
    assert (lab.folder / "lease.sh.dns").read_text().strip() == str(SUBNET[1])
    assert await lab.plane.addresses() == {vm.port.interface: {vm.port.addresses[0]} for vm in (one, other)}


async def test_outwards_vms_are_the_host_and_inwards_only_answers_come(lab: Lab) -> None:
    network = nat()
    await lab.host.ip("addr add 192.0.2.1/24 dev up0")
    await lab.host.ip("link set up0 up")
    await lab.outside.ip("addr add 192.0.2.2/24 dev out0")
    await lab.plane.ensure_network(network)
    vm = await lab.boot(port("one", network))
    await vm.dhcp()
    # The outside has no way back to the subnet: an answer proves the masquerade.
    assert await vm.reaches("192.0.2.2")
    await lab.outside.ip(f"route add {SUBNET} via 192.0.2.1")
    address = str(vm.port.addresses[0])
    asked = await lab.outside.run("busybox", "ping", "-c", "1", "-W", "1", address, check=False)
    assert asked.status != 0
    table = (await lab.host.run("nft", "list", "table", "ip", "carmel-nat")).text
    await lab.host.run("nft", "delete", "table", "ip", "carmel-nat")
    asked = await lab.outside.run("busybox", "ping", "-c", "1", "-W", "1", address, check=False)
    assert asked.status == 0, f"the rules are what kept it away: {table}"


async def test_networks_of_nat_do_not_reach_one_another(lab: Lab) -> None:
    first, second = nat("first"), nat("second", IPv4Network("10.78.0.0/24"))
    await lab.plane.ensure_network(first)
    await lab.plane.ensure_network(second)
    one, other = await lab.boot(port("one", first)), await lab.boot(port("other", second))
    assert await one.dhcp()
    assert await other.dhcp()
    assert not await one.reaches(other.port.addresses[0])


async def test_what_overlaps_is_refused_and_nothing_is_made(lab: Lab) -> None:
    await lab.host.ip("addr add 10.77.0.9/16 dev up0")
    before = await lab.interfaces()
    with pytest.raises(Refused, match=r"overlaps with 10\.77\.0\.0/16, where this host is by up0"):
        await lab.plane.ensure_network(nat())
    assert await lab.interfaces() == before
    await lab.host.ip("addr flush dev up0")
    await lab.plane.ensure_network(nat())
    with pytest.raises(Refused, match=r"overlaps with 10\.77\.0\.0/24 of the network inner"):
        await lab.plane.ensure_network(nat("second", IPv4Network("10.77.0.128/25")))


async def test_another_dhcp_server_on_all_interfaces_is_named_and_nothing_is_left(lab: Lab) -> None:
    pid = lab.folder / "theirs.pid"
    theirs = ["dnsmasq", "--conf-file=/dev/null", f"--pid-file={pid}", "--dhcp-range=192.0.2.50,192.0.2.60"]
    await lab.host.run(*theirs, f"--dhcp-leasefile={lab.folder / 'theirs.leases'}")
    before = await lab.interfaces()
    try:
        with pytest.raises(Refused, match="another DHCP or DNS server") as refused:
            await lab.plane.ensure_network(nat())
        assert refused.value.code == "DhcpPortInUse"
        assert await lab.interfaces() == before
    finally:
        await lab.host.run("kill", pid.read_text().strip())


async def test_a_network_with_ports_stays(lab: Lab) -> None:
    await lab.plane.ensure_network(nat())
    tap = await lab.plug(port("one", nat()))
    with pytest.raises(Refused, match=r"the network inner has 1 port$"):
        await lab.plane.remove_network("inner")
    await lab.plane.detach(tap.port.interface)
    await lab.plane.remove_network("inner")
    assert await lab.interfaces() == {"lo", "up0"}
    assert "carmel" not in (await lab.host.run("nft", "list", "tables")).text
