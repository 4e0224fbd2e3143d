"""A host with no hypervisor of ours has its boot disk, its network and its firewall from the SmartNIC alone."""

from __future__ import annotations

import re
import time

import pytest

from carmel.client.objects import condition, dig
from tests.daemon import is_ready
from tests.full.baremetal.metal import BOOT, FUNCTION, HOST, PORT, Metal, is_seen

pytestmark = pytest.mark.timeout(900)


def test_the_host_boots_from_its_nic_and_has_its_address_through_it(metal: Metal) -> None:
    # By DHCP of what is behind the NIC's uplink.
    metal.wait_for_host("address=10.0.2.")
    # By UEFI, and there is nothing else that it could have booted from or could speak by.
    found = metal.host_shell(
        "[ -d /sys/firmware/efi ] && echo uefi; cat /sys/class/nvme/*/serial; "
        "ls /sys/block | grep -v -e loop -e ram; ls /sys/class/net | grep -v lo"
    )
    assert found.split() == ["uefi", FUNCTION, "nvme0n1", "eth0"], found
    namespace = metal.nic.get("nvmenamespace", BOOT, None)
    assert dig(namespace, "status", "content", "complete") is True
    digest = dig(metal.nic.get("image", "micro-disk"), "status", "digest")
    assert dig(namespace, "status", "content", "digest") == digest
    assert is_ready(metal.port())


def test_the_host_is_nobody_to_the_nic(metal: Metal) -> None:
    # No certificate was signed for it, and on its network the NIC has no address.
    bridge = dig(metal.nic.get("network", "lan", None), "status", "interface")
    said = metal.nic.shell(f"ls /var/lib/carmel/pki/hosts | wc -l; /usr/bin/ip -4 addr show dev {bridge} | wc -l")
    assert said.split() == ["0", "0"], said


def test_it_reaches_the_outside_through_the_nic(metal: Metal, outside: str) -> None:
    interface = dig(metal.port(), "status", "interface")
    counter = f"cat /sys/class/net/{interface}/statistics/rx_packets"
    before = int(metal.nic.shell(counter))
    assert metal.pings(outside, count=20) >= 19
    assert int(metal.nic.shell(counter)) - before >= 19


def test_a_policy_of_the_nic_drops_and_allows(metal: Metal, outside: str) -> None:
    spec = {
        "vmSelector": {"matchLabels": {"app": "host"}},
        "policyTypes": ["Egress"],
        "egress": [{"ports": [{"protocol": "TCP", "port": 80}]}],
    }
    assert metal.pings(outside) == 3
    metal.nic.create("firewallpolicy", {"metadata": {"name": "only-web"}, "spec": spec})
    metal.nic.wait_for("firewallpolicy", "only-web", lambda one: condition(one, "Effective").get("status") == "True")
    assert metal.pings(outside) == 0
    metal.nic.patch("firewallpolicy", "only-web", {"spec": {"egress": [{"ports": [{"protocol": "ICMP"}]}]}})
    deadline = time.monotonic() + 30
    while metal.pings(outside, count=1) == 0:
        assert time.monotonic() < deadline
    metal.nic.delete("firewallpolicy", "only-web")


def test_a_forged_source_does_not_leave(metal: Metal, outside: str) -> None:
    heard = "cat /sys/class/net/out0/statistics/tx_packets"
    metal.host_shell("ip addr add 10.99.0.77/24 dev eth0")
    before = int(metal.nic.shell(heard))
    assert metal.pings(outside, count=20, words="-i 0.1 -I 10.99.0.77") == 0
    assert int(metal.nic.shell(heard)) - before <= 3  # what others say meanwhile
    metal.host_shell("ip addr del 10.99.0.77/24 dev eth0")
    assert metal.pings(outside) == 3
    metal.nic.wait_for("port", PORT, lambda _port: metal.dropped() > 0)


def test_limits_of_its_disk_count_while_it_runs(metal: Metal) -> None:
    metal.nic.patch("nvmenamespace", BOOT, {"spec": {"limits": {"readMBps": 2}}}, None)
    metal.nic.wait_for("nvmenamespace", BOOT, lambda one: is_seen(one) and is_ready(one), namespace=None)
    script = (
        "read -r a _ </proc/uptime; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=16 iflag=direct 2>/dev/null; "
        "read -r b _ </proc/uptime; echo took ${a%.*} ${b%.*}"
    )
    found = re.search(r"took (\d+) (\d+)", metal.host_shell(script))
    assert found is not None
    assert int(found[2]) - int(found[1]) >= 6
    metal.nic.patch("nvmenamespace", BOOT, {"spec": {"limits": None}}, None)
    metal.nic.wait_for("nvmenamespace", BOOT, lambda one: is_seen(one) and is_ready(one), namespace=None)


def test_a_power_cut_of_the_nic_is_a_pause_of_the_host(metal: Metal, outside: str) -> None:
    launch = metal.outer.get("vm", HOST)["status"]["launchID"]
    metal.write_blocks(0, 60)
    metal.wait_for_host("wrote=3")
    metal.power_cut()
    metal.outer.wait_for_console(metal.nic.name, "carmel lab: ready", times=2)
    # Its disk and its port are there again from the NIC's own store.
    metal.wait_for_host("wrote=60")
    metal.check_blocks(0, 60)
    metal.make_outside()
    metal.nic.wait_for("port", PORT, is_ready)
    deadline = time.monotonic() + 30
    while metal.pings(outside, count=1) == 0:
        assert time.monotonic() < deadline
    assert metal.outer.get("vm", HOST)["status"]["launchID"] == launch


def test_a_host_that_is_reset_boots_again_from_it(metal: Metal) -> None:
    metal.be_inside()
    metal.write_blocks(60, 20)
    metal.wait_for_host("wrote=80")
    metal.outer.patch("vm", HOST, {"spec": {"restartRequestedAt": "2030-01-01T00:00:00Z", "powerOffMode": "Hard"}})
    metal.wait_for_host("address=10.0.2.", times=2)
    # What it wrote before is there, and nobody copied an image over it.
    metal.check_blocks(60, 20)
