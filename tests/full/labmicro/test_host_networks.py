"""Host networks on a machine whose kernel has all that they need, under KVM: what guests can do and what they cannot,
and what becomes of it when a leg, a policy or the daemon goes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import is_ready, not_ready_because
from tests.full.labmicro.site import (
    B_IN_20,
    HERE,
    JUMBO,
    LEGS,
    ORDINARY,
    OUT_10,
    OUT_20,
    OUT_30,
    A,
    B,
    Site,
    big,
    bring_up,
    eventually,
)
from tests.system.lab.machine import LabMachine

pytestmark = pytest.mark.timeout(1200)
_VLAN_TAG = 4
"""Bytes that bridges let pass beyond the MTU, with or without one (is_skb_forwardable in the kernel)."""


@pytest.fixture(scope="module")
def site(lab: LabMachine) -> Iterator[Site]:
    here = bring_up(lab)
    yield here
    here.take_down()


def test_guests_of_one_vlan_reach_each_other_and_no_other(site: Site) -> None:
    assert site.answered("a", B, OUT_10) == [True, True]
    # In VLAN 20, where b is not, though it has an address there.
    assert site.answered("c", OUT_20, B_IN_20) == [True, False]


def test_a_trunk_lets_its_vlans_pass_tagged_and_no_other(site: Site) -> None:
    assert site.answered("c", A, OUT_10, OUT_30) == [True, True, False]
    trunk = _nic("twenty", trunk=[30])
    before = site.lab.get("vm", "c")["spec"]["networks"]
    site.lab.patch("vm", "c", {"spec": {"networks": [{**before[0], **trunk}]}})
    assert eventually(lambda: site.answered("c", OUT_30) == [True])
    assert site.answered("c", A, OUT_10, OUT_20) == [False, False, True]
    site.lab.patch("vm", "c", {"spec": {"networks": before}})
    assert eventually(lambda: site.answered("c", A) == [True])


def test_what_a_network_carries_passes_whole_and_nothing_larger(site: Site) -> None:
    """The guest is told; one that does not listen, because its network was changed since, is not heard."""
    whole = "cat /sys/class/net/eth0/mtu; awk '/^Ip: [0-9]/ {print $19}' /proc/net/snmp"
    assert site.answered("a", big(B, JUMBO), big(OUT_10, JUMBO)) == [True, True]
    for name in ("a", "b"):
        mtu, fragments = map(int, site.lab.guest_shell(name, whole).split())
        assert (mtu, fragments) == (JUMBO, 0)
    assert "invalid" in site.lab.guest_shell("a", f"/bin/busybox ip link set eth0 mtu {JUMBO + 1}").lower()
    site.lab.patch("network", "ten", {"spec": {"mtu": ORDINARY}}, None)
    assert eventually(lambda: site.answered("a", big(B, JUMBO)) == [False])
    assert site.answered("a", big(B, ORDINARY), big(B, ORDINARY + _VLAN_TAG + 1)) == [True, False]
    site.lab.patch("network", "ten", {"spec": {"mtu": JUMBO}}, None)
    assert eventually(lambda: site.answered("a", big(B, JUMBO)) == [True])


def test_a_policy_between_guests_drops_and_allows(site: Site) -> None:
    """Nobody gave the guests their addresses: they were learned."""
    known = site.lab.wait_for("port", "a-eth0", lambda port: bool(dig(port, "status", "addresses")))
    assert known["status"]["addresses"] == [A]
    assert (site.answered("a", B), site.answered("c", B)) == ([True], [True])
    spec: JsonObject = {
        "vmSelector": {"matchLabels": {"app": "b"}},
        "ingress": [{"peers": [{"vmSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"protocol": "ICMP"}]}],
    }
    site.lab.create("firewallpolicy", {"metadata": {"name": "only-a"}, "spec": spec})
    site.lab.wait_for("firewallpolicy", "only-a", lambda one: condition(one, "Effective").get("status") == "True")
    assert eventually(lambda: site.answered("a", B) == [True])
    assert site.answered("c", B, A) == [False, True]
    # What b begins is answered: the kernel tracks connections on bridges.
    assert site.answered("b", OUT_10) == [True]
    site.lab.patch("firewallpolicy", "only-a", {"spec": {"ingress": []}})
    assert eventually(lambda: site.answered("a", B) == [False])
    site.lab.delete("firewallpolicy", "only-a")
    assert eventually(lambda: site.answered("c", B) == [True])


def test_frames_are_moved_by_vhost_one_worker_a_queue(site: Site) -> None:
    """By the files that QEMU has open, the kernel's threads, and that those have something to do."""
    for name, queues in (("a", 1), ("b", 2)):
        process = site.lab.process(site.lab.get("vm", name))
        look = f"""
for f in /proc/{process.pid}/fd/*; do readlink $f; done | grep -c /dev/vhost-net
for c in $(grep -l '^vhost-{process.pid}$' /proc/[0-9]*/comm); do grep ^vol ${{c%comm}}status; done
"""
        opened, *before = _numbers(site.shell(look))
        assert (opened, len(before)) == (queues, queues)
        site.lab.guest_shell(name, f"ping -c 50 -A -W 2 {OUT_10} >/dev/null")
        assert sum(_numbers(site.shell(look))[1:]) - sum(before) >= 50
    assert site.lab.guest_shell("b", "ls -d /sys/class/net/eth0/queues/rx-* | wc -l").strip() == "2"


def test_a_leg_of_the_bond_goes_down_and_traffic_goes_on(site: Site) -> None:
    [bond] = [name for name in site.ours() if name.startswith("cmo")]
    folder = f"/sys/class/net/{bond}/bonding"
    for _ in LEGS:
        was = site.shell(f"cat {folder}/active_slave").strip()
        assert was in LEGS
        other_end = was.replace("leg", "to")
        site.lab.guest_shell("a", f"ping -c 600 -i 0.1 -W 1 {OUT_10} >/tmp/p 2>&1 &")
        site.shell(f"""
ip -n out link set {other_end} down
while [ "$(cat {folder}/active_slave)" = {was} ]; do usleep 50000; done
""")
        assert site.answered("a", OUT_10, B) == [True, True]
        sent, received = _end_of_pings(site)
        # miimon looks each 100 ms, and emulation takes its time.
        assert 0 <= sent - received <= 10
        site.shell(f"""
ip -n out link set {other_end} up
until grep -q up /sys/class/net/{was}/bonding_slave/mii_status; do usleep 50000; done
""")


@pytest.mark.parametrize("mode", ["802.3ad", "balance-xor"])
def test_a_bond_is_one_with_the_switchs(site: Site, mode: str) -> None:
    """Whose end is a bond of Linux', too, in the namespace outside."""
    site.shell(f"""
ip -n out link add lag type bond mode {mode} miimon 100
for n in 0 1; do ip link add agg$n type veth peer name far$n netns out; ip -n out link set far$n master lag; done
ip -n out addr add 10.9.99.254/24 dev lag; ip -n out link set lag up
""")
    before = site.ours()
    made = site.network("aggregated", provider="bridge", bridge={"uplinks": ["agg0", "agg1"], "bond": mode})
    assert is_ready(made), made["status"]
    [bond] = [name for name in site.ours() - before if name.startswith("cmo")]
    assert eventually(lambda: _ports_used(site, bond) == 2), site.shell(f"cat /proc/net/bonding/{bond}")
    if mode == "802.3ad":
        partner = site.shell("ip netns exec out cat /sys/class/net/lag/address").strip()
        assert f"Partner Mac Address: {partner}" in site.shell(f"cat /proc/net/bonding/{bond}")

    nics = site.lab.get("vm", "a")["spec"]["networks"]
    site.lab.patch("vm", "a", {"spec": {"networks": [*nics, {"name": "agg", "networkRef": {"name": "aggregated"}}]}})
    site.lab.guest_shell(
        "a", "until ip addr add 10.9.99.1/24 dev eth1; do sleep 1; done 2>/dev/null; ip link set eth1 up"
    )
    assert eventually(lambda: site.answered("a", "10.9.99.254") == [True])
    for leg in ("far0", "far1"):
        site.shell(f"ip -n out link set {leg} down")
        assert eventually(lambda: _ports_used(site, bond) == 1)
        assert eventually(lambda: site.answered("a", "10.9.99.254") == [True])
        site.shell(f"ip -n out link set {leg} up")
        assert eventually(lambda: _ports_used(site, bond) == 2)

    site.lab.patch("vm", "a", {"spec": {"networks": nics}})
    site.lab.wait_gone("port", "a-agg")
    site.remove("aggregated")
    site.shell("ip -n out link del lag; for n in 0 1; do ip link del agg$n; done")
    assert site.ours() == before


def _ports_used(site: Site, bond: str) -> int:
    """How many ports of the bond are in the aggregator that is used, by LACP; else, how many are up (Linux'
    Documentation/networking/bonding.rst)."""
    folder = f"/sys/class/net/{bond}"
    said = site.shell(f"cat {folder}/bonding/ad_num_ports; grep -lx up {folder}/lower_*/bonding_slave/mii_status")
    words = said.split()
    return int(words[0]) if words and words[0].isdigit() else len(words)


def test_the_administrators_own_way_in_is_taken_over_confirmed_and_given_back(site: Site) -> None:
    """It is the one by which this test itself talks to the machine."""
    lab = site.lab
    own = lab.shell("/usr/bin/ip -o -4 addr show dev eth0").split()[3]
    bridge = {"uplinks": ["eth0"], "takeover": True, "confirmSeconds": 300}
    waiting = site.network("way", provider="bridge", bridge=bridge)
    assert condition(waiting, "Ready")["reason"] == "WaitingForConfirmation"
    assert "stays as it is" in lab.cli("--context", lab.name, "network", "confirm", "way")
    confirmed = lab.wait_for("network", "way", is_ready, namespace=None)
    assert dig(confirmed, "status", "takeover", "phase") == "Confirmed"
    address, link = own.split("/")[0], confirmed["status"]["interface"]
    assert (site.is_on(address, link), site.is_on(address, "eth0")) == (True, False)
    assert f"dev {link}" in site.shell("ip route show default")
    site.remove("way")
    assert site.is_on(address, "eth0")
    assert "dev eth0" in site.shell("ip route show default")


def test_the_daemon_is_killed_in_the_middle_of_a_takeover(site: Site) -> None:
    """Guests talk on, the uplink comes back without it, and the next one finds what is there, and what is left over.

    Last: one of the guests ends.
    """
    lab = site.lab
    before = {name: lab.get("vm", name) for name in ("a", "b", "c")}
    processes = {name: lab.process(before[name]).pid for name in before}
    tap = dig(lab.get("port", "c-eth0"), "status", "interface")
    shaper = tap.replace("cmp", "cmi")
    assert {tap, shaper} <= site.ours()
    assert site.reached_from_outside()
    lab.guest_shell("a", f"ping -c 6000 -i 0.2 -W 1 {OUT_10} >/tmp/p 2>&1 &")
    waiting = site.network("way", provider="bridge", bridge={"uplinks": ["up0"], "takeover": True, "confirmSeconds": 5})
    taken = dig(waiting, "status", "interface")
    daemon = lab.daemon_pid()
    site.shell(f"""
kill -9 {daemon} {processes["c"]}
ip link add cmbstale type bridge; ip link set cmbstale group 4410700
ip link add cmbtheirs type bridge
until ip addr show dev up0 | grep -q 'inet {HERE}/'; do usleep 200000; done
""")
    assert site.reached_from_outside()

    lab.await_daemon(other_than=daemon)
    back = lab.wait_for("network", "way", not_ready_because("RolledBack"), namespace=None)
    assert dig(back, "status", "takeover", "phase") == "RolledBack"
    for name in ("a", "b"):
        again = lab.wait_for("vm", name, is_ready)
        assert again["status"]["launchID"] == before[name]["status"]["launchID"]
        assert lab.process(again).pid == processes[name]
    sent, received = _end_of_pings(site)
    assert sent > 20
    assert sent - received <= 1  # one may be on its way
    assert site.answered("a", B, big(B, JUMBO)) == [True, True]
    lab.wait_for("vm", "c", lambda vm: dig(vm, "status", "powerState") == "PoweredOff")
    assert eventually(lambda: not site.ours() & {"cmbstale", taken, tap, shaper})
    assert tap not in site.shell("nft list map bridge carmel-guard ports")
    assert "cmbtheirs" in site.shell("ip link show cmbtheirs")
    site.remove("way")


def _nic(network: str, **more: object) -> JsonObject:
    return {"name": "eth0", "networkRef": {"name": network}, **more}


def _numbers(text: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", text)]


def _end_of_pings(site: Site) -> tuple[int, int]:
    """How many pings ``a`` sent in the background, and how many were answered."""
    said = site.lab.guest_shell(
        "a", "kill -INT $(pidof ping); while pidof ping >/dev/null; do usleep 50000; done; cat /tmp/p"
    )
    found = re.search(r"(\d+) packets transmitted, (\d+) packets received", said)
    assert found, said
    return int(found[1]), int(found[2])
