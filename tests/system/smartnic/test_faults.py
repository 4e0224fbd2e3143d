"""A NIC's daemon that is killed, and a NIC without power: traffic goes on, or comes back without the host."""

from __future__ import annotations

import shutil

from carmel.client.api import Selection
from carmel.client.objects import condition
from carmel.network.names import port_name
from tests.system.smartnic.nic import SUBNET, Nic, because, eventually


def test_traffic_goes_on_while_the_daemon_is_dead(nic: Nic) -> None:
    nic.plug_both()
    assert nic.reach()
    nic.kill()
    assert nic.reach()
    nic.start()
    for number in range(2):
        nic.wait_plugged(number)
    assert nic.reach()
    assert nic.bind("vm0-eth0", None).status == 201
    nic.wait_for("port", "vm0-eth0", because("NoFunction"))
    assert not nic.reach()
    assert "pf0vf0" in nic.space.links()


def test_what_was_unplugged_while_it_was_dead_is_given_back(nic: Nic) -> None:
    """Written into the store by nobody but its daemon: here the port's function is gone by then."""
    nic.plug_both()
    nic.kill()
    nic.space.ip(f"link delete {port_name('uid-of-vm0', 'eth0')}")
    nic.start()
    nic.wait_for("port", "vm0-eth0", because("NoSuchFunction"))
    nic.hot_plug(0, nic.vms[0])
    nic.wait_plugged(0)
    assert nic.reach()


def test_after_a_power_cut_all_is_as_its_own_store_says_without_the_host(nic: Nic) -> None:
    nic.plug_both()
    nic.kill()
    cut_power(nic)
    assert not nic.reach()
    nic.start()
    for number in range(2):
        nic.wait_plugged(number)
    assert nic.reach()


def test_what_somebody_flushed_is_put_back_by_itself(nic: Nic) -> None:
    nic.plug_both()
    vm, stranger = nic.vms[0], f"{SUBNET}.66"
    vm.ip(f"addr add {stranger}/24 dev eth0")
    nic.space.run("nft", "flush", "ruleset")

    def is_told() -> bool:
        events = nic.client.list(nic.client.kind("event"), Selection("default"))["items"]
        return ("RulesPutBack", "lan") in {(one["reason"], one["involvedObject"]["name"]) for one in events}

    assert eventually(is_told)
    assert not vm.reaches(f"{SUBNET}.11", source=stranger)
    assert nic.reach()


def cut_power(nic: Nic) -> None:
    """What a kernel forgets: bridges, filters, names; and all that lies in memory alone."""
    for link in nic.space.links():
        if link.startswith("cmb"):
            nic.space.ip(f"link delete {link}")
    for number in range(2):
        interface = port_name(f"uid-of-vm{number}", "eth0")
        nic.space.ip(f"link set {interface} down")
        nic.space.ip(f"link set {interface} name pf0vf{number} group default alias pf0vf{number}")
    nic.space.run("nft", "flush", "ruleset")
    shutil.rmtree(nic.paths.runtime)
    nic.end_servers()


def test_policies_are_in_force_or_ports_are_not_plugged(nic: Nic) -> None:
    """Kernels without connection tracking on bridges cannot do what a policy says: nothing passes then."""
    nic.plug_both()
    assert nic.reach()
    deny = {"action": "Deny", "ports": [{"protocol": "ICMP"}]}
    spec = {"vmSelector": {"matchLabels": {"app": "vm1"}}, "ingress": [deny]}
    nic.create(
        "firewallpolicy",
        {"apiVersion": "carmel.dev/v1alpha1", "kind": "FirewallPolicy", "metadata": {"name": "p"}, "spec": spec},
    )
    nic.wait_for("firewallpolicy", "p", lambda one: bool(condition(one, "Ready")))
    policy = nic.get("firewallpolicy", "p")
    if condition(policy, "Ready")["status"] == "False":
        assert condition(policy, "Ready")["reason"] == "NoBridgeTracking"
        nic.wait_for("port", "vm0-eth0", because("NoBridgeTracking"))
        assert nic.plugged() == set()
    assert not nic.reach()
    nic.delete("firewallpolicy", "p")
    for number in range(2):
        nic.wait_plugged(number)
    assert nic.reach()
