"""Real guests on a nat network of a real daemon."""

from __future__ import annotations

import contextlib
import os
import re
import signal

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import Daemon, daemon_directory, is_ready, not_ready_because
from tests.system.network.hosted.site import GATEWAY, OUTSIDE, Console, Site, address, eventually


def test_a_guest_has_the_address_that_was_planned_and_reaches_out(site: Site) -> None:
    assert is_ready(site.nat())
    vm = site.boot()
    port = site.port()
    [planned] = port["spec"]["addresses"]
    assert vm["status"]["addresses"] == [planned]
    assert f"address={planned}" in site.daemon.wait_for_console("w", "ready nonce=")
    with site.console() as console:
        assert console.does(f"ping -c 1 -W 5 {GATEWAY}")
        assert console.does(f"ping -c 1 -W 5 {OUTSIDE}")
        # DNS is answered here: a name without a dot is nobody else's business (dnsmasq(8), --domain-needed).
        assert "NXDOMAIN" in console.run("nslookup nobody")
        assert f"nameserver {GATEWAY}" in console.run("cat /etc/resolv.conf")
    # From outside nothing comes in, though there is a way.
    site.outside.ip("route add 10.77.0.0/24 via 192.0.2.1")
    assert not site.outside.can("busybox", "ping", "-c", "1", "-W", "1", planned)
    site.outside.ip("route delete 10.77.0.0/24 via 192.0.2.1")
    status = port["status"]
    assert status["interface"] in site.taps()
    assert (status["dataPlane"], status["addresses"]) == ("Host", [planned])
    assert dig(site.settled("inner"), "status", "ports") == 1


def test_two_guests_see_each_other_and_the_source_guard_holds_them_to_what_is_theirs(site: Site) -> None:
    site.nat()
    site.start("b", {"name": "eth0", "networkRef": {"name": "inner"}})
    site.boot("a")
    site.daemon.wait_for_console("b", "ready nonce=b")
    there = address(site.daemon.get("vm", "b"))
    with site.console("a") as console:
        assert console.does(f"ping -c 1 -W 5 {there}")
        console.run("ip addr add 10.77.0.250/24 dev eth0")
        assert not console.does(f"ping -c 2 -W 1 -I 10.77.0.250 {there}")
        assert console.does(f"ping -c 1 -W 5 {there}")
    site.daemon.wait_for("port", "a-eth0", lambda port: (dig(port, "status", "counters", "droppedPackets") or 0) > 0)
    # Switched off while it runs, it holds nobody.
    site.daemon.patch("vm", "a", {"spec": {"networks": [_nic(sourceGuard=False)]}})
    site.daemon.wait_for("port", "a-eth0", lambda port: port["spec"]["sourceGuard"] is False)
    with site.console("a") as console:
        assert eventually(lambda: console.does(f"ping -c 1 -W 1 -I 10.77.0.250 {there}"))
    assert condition(site.daemon.get("vm", "a"), "RestartRequired") == {}


def test_counters_agree_with_what_the_guest_counts(site: Site) -> None:
    site.nat()
    site.boot()
    with site.console() as console:
        # Router solicitations would come in between, minutes after the boot.
        console.run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        assert console.does(f"ping -c 20 -i 0.1 -s 1000 {OUTSIDE}")

        def agrees(port: JsonObject) -> bool:
            counters = dig(port, "status", "counters") or {}
            if (counters.get("sentPackets") or 0) < 20:
                return False
            told = [int(one) for one in re.findall(r"^\d+$", console.run(_STATISTICS), re.MULTILINE)[:4]]
            return [counters[name] for name in _COUNTED] == told

        port = site.daemon.wait_for("port", "w-eth0", agrees)
    counters = port["status"]["counters"]
    assert counters["sentBytes"] >= 20 * 1000
    assert counters["receivedBytes"] >= 20 * 1000
    assert counters["droppedPackets"] == 0


_COUNTED = ("receivedPackets", "receivedBytes", "sentPackets", "sentBytes")
_STATISTICS = "(cd /sys/class/net/eth0/statistics; cat rx_packets rx_bytes tx_packets tx_bytes)"


def test_traffic_goes_on_without_the_daemon_and_the_next_one_goes_on_with_it(site: Site) -> None:
    site.nat()
    vm = site.boot()
    before, taps, version = site.host.links(), site.taps(), site.port()["metadata"]["resourceVersion"]
    uid = vm["metadata"]["uid"]
    site.daemon.kill()
    console = Console(site.daemon, uid)
    assert console.does(f"ping -c 1 -W 5 {OUTSIDE}")
    site.daemon.start()
    assert console.does(f"ping -c 1 -W 5 {OUTSIDE}")
    # A new lease is to be had from the server that was there all the time.
    assert console.does("udhcpc -i eth0 -n -q -t 5 -T 1 -s /etc/udhcpc")
    console.close()
    assert site.host.links() == before
    assert site.taps() == taps
    again = site.daemon.wait_for("vm", "w", is_ready)
    assert again["status"]["addresses"] == vm["status"]["addresses"]
    assert site.port()["metadata"]["generation"] == 1
    assert version
    site.daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
    site.daemon.wait_for("port", "w-eth0", lambda port: dig(port, "status", "interface") is None)
    assert site.taps() == set()


def test_a_suspended_vm_comes_back_to_its_network(site: Site) -> None:
    site.nat()
    site.boot()
    with site.console() as console:
        console.run("ping -c 1 -W 5 192.0.2.2")
    site.daemon.patch("vm", "w", {"spec": {"powerState": "Suspended"}})
    site.daemon.wait_for("vm", "w", lambda vm: dig(vm, "status", "powerState") == "Suspended")
    site.daemon.wait_for("port", "w-eth0", lambda port: dig(port, "status", "interface") is None)
    assert site.taps() == set()
    site.daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOn"}})
    site.daemon.wait_for("vm", "w", is_ready)
    with site.console() as console:
        assert console.does(f"ping -c 2 -W 5 {OUTSIDE}")


def test_a_nic_comes_and_goes_while_the_guest_runs(site: Site) -> None:
    site.nat()
    site.boot()
    second = {"name": "eth1", "networkRef": {"name": "inner"}}
    site.daemon.patch("vm", "w", {"spec": {"networks": [_nic(), second]}})
    port = site.daemon.wait_for("port", "w-eth1", lambda port: dig(port, "status", "interface") is not None)
    [planned] = port["spec"]["addresses"]
    mac = port["spec"]["mac"]
    with site.console() as console:
        name = f"$(basename $(dirname $(grep -l {mac} /sys/class/net/*/address)))"
        assert eventually(lambda: console.does(f"grep -l {mac} /sys/class/net/*/address"))
        assert console.does(f"ip link set {name} up && udhcpc -i {name} -n -q -t 5 -T 1 -s /etc/udhcpc")
        assert planned in console.run(f"ip -4 addr show dev {name}")
        vm = site.daemon.get("vm", "w")
        assert [one["name"] for one in vm["status"]["networks"]] == ["eth0", "eth1"]
        assert condition(vm, "RestartRequired") == {}
        # The daemon is killed, and the next one unplugs what it did not plug.
        site.daemon.restart()
        site.daemon.patch("vm", "w", {"spec": {"networks": [_nic()]}})
        site.daemon.wait_gone("port", "w-eth1")
        assert not console.does(f"grep -l {mac} /sys/class/net/*/address")
        assert console.does(f"ping -c 1 -W 5 {GATEWAY}")
    assert site.taps() == {site.port()["status"]["interface"]}


def test_what_is_left_over_goes_and_nobody_elses_is_touched(site: Site) -> None:
    site.nat()
    site.host.ip("link add theirs0 type bridge")
    site.host.ip("link add cmbtheirs type bridge")
    site.host.run("nft", "add", "table", "bridge", "theirs")
    site.boot()
    site.daemon.kill()
    for pid in site.daemon.qemu_pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    site.daemon.start()
    site.daemon.delete_all_vms()
    site.daemon.delete("network", "inner", None)
    site.daemon.wait_gone("network", "inner", None)
    assert site.host.links() == {"lo", "up0", "theirs0", "cmbtheirs"}
    assert "table bridge theirs" in site.host.tables()
    assert not [table for table in site.host.tables() if "carmel-nat" in table or "carmel-guard" in table]
    for name in ("theirs0", "cmbtheirs"):
        site.host.ip(f"link delete {name}")
    site.host.run("nft", "delete", "table", "bridge", "theirs")


def test_what_cannot_be_is_said(site: Site) -> None:
    site.nat()
    overlapping = site.nat("second", "10.77.0.128/25")
    assert condition(overlapping, "Ready")["reason"] == "NetworksOverlap"
    where_it_is = site.nat("third", "192.0.2.0/24")
    assert "where this host is by up0" in condition(where_it_is, "Accepted")["message"]
    nowhere = site.network("fourth", provider="bridge", bridge={"uplinks": ["eth7"]})
    assert condition(nowhere, "Ready")["message"] == "this host has no interface eth7. It has up0."
    site.start("w", {"name": "eth0", "networkRef": {"name": "second"}})
    waiting = site.daemon.wait_for("vm", "w", not_ready_because("WaitingForNetwork"))
    assert "overlaps with 10.77.0.0/24 of the network inner" in condition(waiting, "Ready")["message"]
    # What was in the way goes.
    site.daemon.delete("network", "inner", None)
    site.daemon.wait_for("vm", "w", is_ready)


def test_another_dhcp_server_is_said(site: Site) -> None:
    words = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--dhcp-range=203.0.113.9,203.0.113.99")
    with site.host.running("dnsmasq", *words, "--pid-file=", "--dhcp-leasefile=/dev/null"):
        assert eventually(lambda: ":67 " in site.host.run("ss", "-lnu"))
        network = site.nat()
        assert condition(network, "Ready")["reason"] == "DhcpPortInUse"
        assert "another DHCP or DNS server of this host" in condition(network, "Ready")["message"]
        # It may be tried once more just now, and is undone again.
        assert eventually(lambda: site.host.links() == {"lo", "up0"})
        assert eventually(lambda: not [table for table in site.host.tables() if "carmel" in table])
    site.daemon.wait_for("network", "inner", is_ready, namespace=None)


def test_another_daemon_of_this_machine_is_told(site: Site) -> None:
    site.nat()
    with daemon_directory() as root:
        other = Daemon(root, prefix=site.host.into)
        try:
            other.start()
            other.create("network", {"metadata": {"name": "theirs"}, "spec": _NAT}, None)
            network = other.wait_for("network", "theirs", lambda one: bool(dig(one, "status")), namespace=None)
            refused = condition(network, "Ready")
            assert refused["reason"] == "AnotherDaemon"
            assert f"process {site.daemon.pid} of user 0" in refused["message"]
        finally:
            other.close()
    assert is_ready(site.settled("inner"))


_NAT: JsonObject = {"provider": "nat", "nat": {"subnet": "10.99.0.0/24"}}


def _nic(**more: object) -> JsonObject:
    return {"name": "eth0", "networkRef": {"name": "inner"}, **more}
