"""A SmartNIC that switches by Open vSwitch: chosen, used, enforced, killed and started anew."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from carmel.errors import Invalid
from tests.api import Predicate
from tests.system.network.ovs.server import Server, missing, server
from tests.system.smartnic.conftest import require_programs
from tests.system.smartnic.nic import SUBNET, Nic, Space, because, eventually, port, running_nic


class OvsNic:
    """``nic``, and the Open vSwitch in its namespace."""

    def __init__(self, nic: Nic, ovs: Server, runner: asyncio.Runner) -> None:
        self.nic = nic
        self._ovs = ovs
        self._runner = runner

    def restart_switching(self) -> None:
        self._runner.run(self._ovs.end("ovs-vswitchd", signal.SIGKILL))
        self._runner.run(self._ovs.start_switching())

    def stop_switching(self) -> None:
        self._runner.run(self._ovs.end("ovs-vswitchd"))

    def start_switching(self) -> None:
        self._runner.run(self._ovs.start_switching())

    def show(self) -> str:
        return self._runner.run(self._ovs.vsctl("show"))

    def choose(self, switch: str) -> None:
        self.nic.patch("smartnic", self.nic.own_name(), {"spec": {"switch": switch}}, None)

    def wait_for_itself(self, predicate: Predicate) -> JsonObject:
        return self.nic.wait_for("smartnic", self.nic.own_name(), predicate, namespace=None)


@pytest.fixture
def ovs() -> Iterator[OvsNic]:
    require_programs()
    if why := missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="cmv-"))
    try:
        with running_nic() as nic, asyncio.Runner() as runner:
            switch = server(folder, Path("/run/netns") / nic.space.name)
            made = OvsNic(nic, runner.run(switch.__aenter__()), runner)
            nic.environ["OVS_RUNDIR"] = str(folder)
            try:
                yield made
            finally:
                nic.stop()
                runner.run(switch.__aexit__(None, None, None))
    finally:
        shutil.rmtree(folder)


def chosen(ovs: OvsNic) -> Nic:
    ovs.choose("OpenVSwitch")
    ovs.nic.stop()
    ovs.nic.start()
    return ovs.nic


def denied(*ports: int) -> JsonObject:
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "closed"},
        "spec": {
            "vmSelector": {"matchLabels": {"app": "vm1"}},
            "ingress": [{"ports": [{"protocol": "TCP", "port": port}]} for port in ports],
        },
    }


def test_it_is_chosen_while_nothing_is_plugged_in_and_used_from_the_next_start(ovs: OvsNic) -> None:
    nic = ovs.nic
    nic.plug_both()
    assert nic.reach()
    with pytest.raises(Invalid, match="cannot be changed while functions are plugged into ports"):
        ovs.choose("OpenVSwitch")
    for number in range(2):
        nic.bind(f"vm{number}-eth0", None)
        nic.wait_for("port", f"vm{number}-eth0", because("NoFunction"))
    ovs.wait_for_itself(lambda one: all(each["state"] == "Free" for each in one["status"]["functions"]))
    ovs.choose("OpenVSwitch")
    shown = ovs.wait_for_itself(lambda one: condition(one, "SwitchInUse").get("reason") == "RestartNeeded")
    assert shown["status"]["switch"] == "LinuxBridge"
    bridges = {name for name in nic.space.links() if name.startswith("cmb")}
    nic.stop()
    nic.start()
    shown = ovs.wait_for_itself(lambda one: condition(one, "SwitchInUse").get("status") == "True")
    assert shown["status"]["switch"] == "OpenVSwitch"
    nic.wait_for("network", "lan", lambda one: dig(one, "status", "backend") == "openvswitch", namespace=None)
    assert bridges < nic.space.links()  # The gateway has the bridge's name, and is Open vSwitch's.
    assert "cmb-ports" in ovs.show()
    for number in range(2):
        assert nic.bind(f"vm{number}-eth0", f"pf0vf{number}").status == 201
        nic.wait_plugged(number)
    assert nic.reach()


def test_a_policy_drops_and_allows_what_spoofs_never_leaves_and_all_is_counted(ovs: OvsNic) -> None:
    nic = chosen(ovs)
    nic.plug_both()
    assert nic.reach()
    nic.create("firewallpolicy", denied(443))
    nic.wait_for("firewallpolicy", "closed", lambda one: condition(one, "Ready").get("status") == "True")
    assert not nic.reach()
    # It is about who comes to vm1 only.
    assert nic.reach(1, 0)
    nic.delete("firewallpolicy", "closed")
    assert eventually(nic.reach)
    vm = nic.vms[0]
    vm.ip("addr add 10.77.0.66/24 dev eth0")
    assert not vm.reaches("10.77.0.11", source="10.77.0.66")
    nic.wait_for("port", "vm0-eth0", lambda one: (dig(one, "status", "counters", "droppedPackets") or 0) > 0)
    nic.wait_for("port", "vm0-eth0", lambda one: (dig(one, "status", "counters", "sentPackets") or 0) > 0)


def beyond_an_uplink(nic: Nic, address: str) -> Space:
    """A machine on the network that the NIC's uplink leads to."""
    space = nic.make_space("far")
    nic.space.ip(f"link add p0 address 52:54:00:ca:03:00 type veth peer name eth0 netns {space.name}")
    space.ip("link set eth0 up")
    space.ip(f"addr add {address}/24 dev eth0")
    return space


def remote_port(*addresses: str) -> JsonObject:
    """A VM of the host's own network, as ``carmel smartnic sync`` has it on the NIC."""
    made = port(9, networkRef={"name": "own"}, mac="52:54:00:00:00:09", remote=True, addresses=list(addresses))
    return {**made, "metadata": {"name": "db-eth0", "labels": {"app": "db"}}}


def test_a_policy_knows_peers_that_are_elsewhere(ovs: OvsNic) -> None:
    nic = chosen(ovs)
    first, second = f"{SUBNET}.50", f"{SUBNET}.51"
    db = beyond_an_uplink(nic, first)
    db.ip(f"addr add {second}/24 dev eth0")
    nic.make_network(provider="bridge", bridge={"uplinks": ["p0"]})
    for number in range(2):
        nic.make_port(number)
        assert nic.bind(f"vm{number}-eth0", f"pf0vf{number}").status == 201
        nic.wait_plugged(number)
    there = f"{SUBNET}.11"
    assert db.reaches(there)
    policy = denied()
    policy["spec"]["ingress"] = [{"peers": [{"vmSelector": {"matchLabels": {"app": "db"}}}]}]
    nic.create("firewallpolicy", policy)
    nic.wait_for("firewallpolicy", "closed", lambda one: condition(one, "Ready").get("status") == "True")
    assert eventually(lambda: not db.reaches(there))
    nic.create("port", remote_port(first))
    assert eventually(lambda: db.reaches(there, source=first))
    assert not db.reaches(there, source=second)
    assert not nic.reach()
    # Not even a host that is root on its side can be that peer.
    answer = nic.bind("db-eth0", "pf0vf0")
    assert (answer.status, answer.code) == (403, "PortNotBindable")
    # A sync later it has another address, and a daemon later too.
    nic.patch("port", "db-eth0", {"spec": {"addresses": [second]}})
    assert eventually(lambda: db.reaches(there, source=second))
    assert not db.reaches(there, source=first)
    nic.kill()
    nic.start()
    nic.wait_plugged(1)
    assert eventually(lambda: db.reaches(there, source=second))
    assert not db.reaches(there, source=first)


def test_traffic_goes_on_while_the_daemon_is_dead(ovs: OvsNic) -> None:
    nic = chosen(ovs)
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


def test_what_a_start_of_vswitchd_loses_is_put_back(ovs: OvsNic) -> None:
    nic = chosen(ovs)
    nic.plug_both()
    assert nic.reach()
    ovs.restart_switching()
    assert eventually(nic.reach)


def test_an_open_vswitch_that_does_not_run_is_told_of_and_waited_for(ovs: OvsNic) -> None:
    nic = ovs.nic
    ovs.choose("OpenVSwitch")
    nic.stop()
    ovs.stop_switching()
    nic.start()
    shown = ovs.wait_for_itself(lambda one: condition(one, "Ready").get("status") == "False")
    assert condition(shown, "Ready")["reason"] in {"SwitchNotReady", "SwitchStopped"}
    ovs.start_switching()
    ovs.wait_for_itself(lambda one: condition(one, "Ready").get("status") == "True")
    nic.plug_both()
    assert nic.reach()
