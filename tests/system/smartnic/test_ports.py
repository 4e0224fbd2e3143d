"""A real ``carmeld --role smartnic`` plugs functions into ports; its host says which, over mutual TLS."""

from __future__ import annotations

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, condition, dig
from carmel.network.names import port_name
from tests.system.smartnic.nic import SUBNET, Nic, because, mac, port


def net_functions(nic: JsonObject) -> list[JsonObject]:
    return [one for one in dig(nic, "status", "functions") or [] if one["kind"] == "net"]


def test_a_host_plugs_its_functions_and_they_meet_through_the_nic_alone(nic: Nic) -> None:
    nic.make_network()
    for number in range(2):
        nic.make_port(number)
    nic.wait_for("port", "vm0-eth0", because("NoFunction"))
    assert not nic.reach()
    for number in range(2):
        assert nic.bind(f"vm{number}-eth0", f"pf0vf{number}").status == 201
        nic.wait_plugged(number)
    assert nic.reach()
    plugged = nic.get("port", "vm0-eth0")["status"]
    assert (plugged["dataPlane"], plugged["function"]) == ("SmartNIC", "pf0vf0")
    assert plugged["interface"] == port_name("uid-of-vm0", "eth0")
    assert plugged["addresses"] == [f"{SUBNET}.10"]
    nic.wait_for("port", "vm0-eth0", lambda one: (dig(one, "status", "counters", "sentPackets") or 0) > 0)
    events = nic.client.list(nic.client.kind("event"), Selection("default"))["items"]
    said = {(event["reason"], event["involvedObject"]["name"], event["message"]) for event in events}
    assert ("FunctionPlugged", "vm0-eth0", "system:host:server-1 plugged in the function pf0vf0") in said


def test_unplugged_it_is_free_and_down_again(nic: Nic) -> None:
    nic.plug_both()
    shown = nic.wait_for(
        "smartnic",
        nic.own_name(),
        lambda one: [each["state"] for each in net_functions(one)] == ["Plugged"] * 2,
        namespace=None,
    )
    owner = {"kind": "Port", "namespace": "default", "name": "vm0-eth0"}
    assert shown["status"]["functions"][0]["owner"] == owner
    assert nic.bind("vm0-eth0", None).status == 201
    nic.wait_for("port", "vm0-eth0", because("NoFunction"))
    assert not nic.reach()
    link = nic.space.ip("-o link show pf0vf0")
    assert "UP" not in link.split(">")[0]
    assert "master" not in link
    nic.wait_for(
        "smartnic",
        nic.own_name(),
        lambda one: net_functions(one)[0]["state"] == "Free",
        namespace=None,
    )
    nic.delete("port", "vm1-eth0")
    nic.wait_for(
        "smartnic",
        nic.own_name(),
        lambda one: net_functions(one)[1]["state"] == "Free",
        namespace=None,
    )
    assert nic.plugged() == set()


def test_neither_another_mac_nor_another_address_gets_out(nic: Nic) -> None:
    nic.plug_both()
    assert nic.reach()
    vm = nic.vms[0]
    vm.ip(f"addr add {SUBNET}.66/24 dev eth0")
    assert not vm.reaches(f"{SUBNET}.11", source=f"{SUBNET}.66")
    vm.ip("link set eth0 address 52:54:00:00:00:99")
    assert not nic.reach()
    vm.ip(f"link set eth0 address {mac(0)}")
    assert nic.reach()
    nic.wait_for("port", "vm0-eth0", lambda one: (dig(one, "status", "counters", "droppedPackets") or 0) > 0)


def test_the_mac_that_a_function_has_is_the_one_that_counts(nic: Nic) -> None:
    """An emulated NIC cannot give it another: the port says so, and works."""
    nic.make_network()
    nic.make_port(0, mac="52:54:00:00:aa:00")
    nic.make_port(1)
    for number in range(2):
        nic.bind(f"vm{number}-eth0", f"pf0vf{number}")
    shown = nic.wait_plugged(0)
    nic.wait_plugged(1)
    assert shown["status"]["mac"] == mac(0)
    assert condition(shown, "MacAsWished")["reason"] == "MacNotSettable"
    assert nic.reach()


def test_a_port_waits_for_its_network(nic: Nic) -> None:
    nic.make_port(0)
    assert nic.bind("vm0-eth0", "pf0vf0").status == 201
    waiting = nic.wait_for("port", "vm0-eth0", because("NetworkNotReady"))
    assert condition(waiting, "Ready")["message"] == "there is no network lan on this SmartNIC"
    nic.make_network()
    nic.wait_plugged(0)


def test_a_function_goes_and_comes_back_by_itself(nic: Nic) -> None:
    nic.plug_both()
    assert nic.reach()
    nic.space.ip(f"link delete {port_name('uid-of-vm0', 'eth0')}")
    nic.wait_for("port", "vm0-eth0", because("NoSuchFunction"))
    nic.wait_for("smartnic", nic.own_name(), lambda one: len(net_functions(one)) == 1, namespace=None)
    nic.hot_plug(0, nic.vms[0])
    nic.wait_plugged(0)
    assert nic.reach()


def test_a_function_that_is_hot_plugged_is_shown_at_once(nic: Nic) -> None:
    nic.hot_plug(10, nic.make_space("vm10"))
    wanted = {"id": "pf0vf10", "kind": "net", "mac": mac(10), "representor": "pf0vf10", "state": "Free"}
    nic.wait_for("smartnic", nic.own_name(), lambda one: net_functions(one)[2:] == [wanted], namespace=None)


def test_a_function_is_in_one_port_even_if_two_are_written_to_have_it(nic: Nic) -> None:
    """By administrators, who do not ask for a binding."""
    nic.make_network()
    nic.make_port(0, function="pf0vf0")
    nic.wait_plugged(0)
    nic.make_port(1, function="pf0vf0")
    second = nic.wait_for("port", "vm1-eth0", because("FunctionInUse"))
    assert condition(second, "Ready")["message"] == "the function pf0vf0 is plugged into the port default/vm0-eth0"
    nic.restart()
    nic.wait_plugged(0)
    nic.patch("port", "vm0-eth0", {"spec": {"function": None}})
    nic.wait_plugged(1)


def test_bare_metal_needs_nothing_on_the_host(nic: Nic) -> None:
    """An administrator of the NIC makes and plugs the machine's own port; the host could not unplug it."""
    nic.make_network()
    nic.make_port(0, owner="host", nic="boot", function="pf0vf0")
    nic.make_port(1, owner="host", nic="data", function="pf0vf1")
    for number in range(2):
        nic.wait_plugged(number)
    assert nic.reach()
    refused = nic.bind("vm0-eth0", None)
    assert (refused.status, refused.code) == (403, "PortNotBindable")
    assert nic.reach()


def test_a_port_changes_while_traffic_passes(nic: Nic) -> None:
    nic.plug_both()
    assert nic.reach()
    nic.patch("port", "vm0-eth0", {"spec": {"addresses": [f"{SUBNET}.20"]}})
    nic.wait_plugged(0)
    assert not nic.reach()
    nic.vms[0].ip(f"addr add {SUBNET}.20/24 dev eth0")
    assert nic.vms[0].reaches(f"{SUBNET}.11", source=f"{SUBNET}.20")


def test_two_ports_of_one_nic_of_one_owner_do_not_take_turns(nic: Nic) -> None:
    nic.plug_both()
    same = {**port(0)["spec"], "function": "pf0vf1"}
    nic.patch("port", "vm1-eth0", {"spec": {"function": None}})
    nic.create("port", {**port(2), "spec": same})
    nic.wait_for("port", "vm2-eth0", because("PortExists"))
    assert nic.get("port", "vm0-eth0")["status"]["function"] == "pf0vf0"
