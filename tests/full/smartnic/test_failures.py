"""What offloaded guests feel of what happens around them: hot-plug, other versions, a host without power.

One lab and two guests for all of it. Each test leaves guests, network and NIC as it found them.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from carmel import __version__
from carmel.client.api import Selection
from carmel.client.objects import JsonObject, condition, dig
from carmel.resources.base import format_time
from tests.daemon import has_power, is_ready
from tests.full.smartnic.drives import check_blocks, offer, plug, write_blocks
from tests.full.smartnic.offloaded import ADDRESSES, NETWORK, OUTSIDE, Offloaded, bring_up
from tests.full.smartnic.pair import NIC, Pair, await_answer
from tests.full.smartnic.target import Target
from tests.full.smartnic.versions import Edit, become, restart, return_to_own

pytestmark = pytest.mark.timeout(1200)
FUNCTION, DISK = "pf0nvme0", "data"
C_ADDRESS, SECOND_ADDRESS = "10.99.0.13", "10.99.0.14"
BLOCKS = "/dev/nvme0n1"


@pytest.fixture(scope="module")
def here(pair: Pair) -> Offloaded:
    return bring_up(pair)


@pytest.fixture(scope="module")
def target(pair: Pair) -> Target:
    """Storage that the NIC can reach."""
    target = Target(pair.nic)
    target.start()
    return target


@pytest.fixture(scope="module")
def disk(here: Offloaded, target: Target) -> JsonObject:
    """For guest ``c``: a namespace that the NIC shows in a function of its own."""
    pair = here.pair
    offer(pair, DISK, 2, FUNCTION, owner={"namespace": "default", "name": "c"})
    plug(pair, FUNCTION)
    spec = {"type": "SmartNIC", "smartNICRef": {"name": NIC}}
    pair.host.create("datastore", {"metadata": {"name": "nic"}, "spec": spec}, None)
    volume = {"datastoreRef": {"name": "nic"}, "export": DISK}
    pair.host.create("volume", {"metadata": {"name": DISK}, "spec": volume})
    pair.host.wait_for("volume", DISK, is_ready)
    return {"name": "data", "bus": "nvme", "volumeRef": {"name": DISK}}


@pytest.fixture(scope="module")
def both(here: Offloaded, disk: JsonObject) -> str:
    """A guest with a NIC and a disk of the SmartNIC's, which is not started when its host is."""
    here.make_guest("c", C_ADDRESS, disks=[disk], startAtBoot=False)
    here.sync()
    here.await_guest("c", C_ADDRESS)
    return "c"


def test_a_nic_comes_and_goes_while_others_send(here: Offloaded) -> None:
    host, nic = here.pair.host, here.pair.nic
    nics = host.get("vm", "b")["spec"]["networks"]
    free, ports = functions_in_state(here, "Free"), len(bindings(here))
    second = {"name": "eth1", "networkRef": {"name": NETWORK}, "addresses": [SECOND_ADDRESS]}
    with here.pinging("a", ADDRESSES["b"]) as inside, here.pinging("b", OUTSIDE) as outwards:
        host.patch("vm", "b", {"spec": {"networks": [*nics, second]}})
        # Until the NIC's administrators have made its port, the VM runs on without.
        host.wait_for("vm", "b", lambda vm: condition(vm, "NICsPlugged").get("status") == "False")
        here.sync()
        nic.wait_for("port", "b-eth1", is_ready)
        host.wait_for("vm", "b", lambda vm: len(dig(vm, "status", "networks") or ()) == 2)
        host.guest_shell("b", "until [ -e /sys/class/net/eth1 ]; do :; done")
        here.set_address("b", "eth1", SECOND_ADDRESS)
        assert here.pings("b", OUTSIDE, words="-I eth1") == 3
        taken = free - functions_in_state(here, "Free")
        assert taken == {dig(host.get("port", "b-eth1"), "status", "function")}
        for api in (host, nic):
            api.wait_for("network", NETWORK, lambda one: dig(one, "status", "ports") == ports + 1, namespace=None)

        host.patch("vm", "b", {"spec": {"networks": nics}})
        host.wait_gone("port", "b-eth1")
        nic.wait_for("port", "b-eth1", lambda port: dig(port, "spec", "function") is None)
        here.sync()
        nic.wait_gone("port", "b-eth1")
        host.wait_for("smartnic", NIC, lambda _one: functions_in_state(here, "Free") == free, namespace=None)
        for api in (host, nic):
            api.wait_for("network", NETWORK, lambda one: dig(one, "status", "ports") == ports, namespace=None)
    assert (inside.lost, outwards.lost) == (0, 0), (inside, outwards)
    assert "eth1" not in host.guest_shell("b", "ls /sys/class/net").split()


def test_an_nvme_function_comes_and_goes_while_its_guest_sends(here: Offloaded, both: str, disk: JsonObject) -> None:
    host = here.pair.host
    with here.pinging(both, ADDRESSES["a"]) as pinged:
        host.patch("vm", both, {"spec": {"disks": []}})
        host.wait_for("vm", both, lambda vm: not dig(vm, "status", "disks"))
        assert BLOCKS not in host.guest_shell(both, "ls /dev/nvme*").split()
        host.patch("vm", both, {"spec": {"disks": [disk]}})
        host.guest_shell(both, f"until [ -b {BLOCKS} ]; do :; done")
        write_blocks(here.pair, both, BLOCKS, 400, 20)
        host.wait_for_console(both, "wrote=419")
    assert pinged.lost == 0, pinged
    assert pinged.sent > 0


def test_nic_and_disk_of_one_guest_go_on_without_the_nics_daemon(here: Offloaded, both: str) -> None:
    pair = here.pair
    with here.pinging(both, OUTSIDE) as pinged, here.pinging("a", C_ADDRESS) as inwards:
        write_blocks(pair, both, BLOCKS, 0, 100)
        pair.host.wait_for_console(both, "wrote=2")
        pair.kill_daemon(pair.nic)
        pair.host.wait_for_console(both, "wrote=99")
        await_answer(pair.nic)
        pair.nic.wait_for("port", f"{both}-eth0", is_ready)
    assert (pinged.lost, inwards.lost) == (0, 0), (pinged, inwards)
    check_blocks(pair, both, BLOCKS, 100)


def test_host_and_nic_of_different_versions(here: Offloaded) -> None:
    """Each is the newer one for a time, with a field that the other has never heard of."""
    pair, green = here.pair, "green"
    host, nic = pair.host, pair.nic
    spec = {"provider": "bridge", "bridge": {"uplinks": ["out0"], "vlan": 7}, "dataPlane": "SmartNIC"}
    host.create("network", {"metadata": {"name": green}, "spec": spec}, None)
    had = bindings(here)
    with here.pinging("a", ADDRESSES["b"]) as pinged:
        mtu = "    mtu: int | None = Field(default=None, ge=576"
        storms = "    storm_limit: int | None = None\n"
        become(host, "7.0.0", Edit("resources/network.py", mtu, storms + mtu))
        restart(pair, host)
        host.patch("network", green, {"spec": {"stormLimit": 100}}, None)
        await_skew(here, "True", f"the NIC runs Carmel {__version__}, this host 7.0.0")
        here.sync()
        nic.wait_for("network", green, is_ready, namespace=None)
        assert "stormLimit" not in nic.get("network", green, None)["spec"]
        # Said, and not tried again and again.
        found = host.wait_for(
            "smartnic", NIC, lambda one: condition(one, "InSync").get("reason") == "FieldsLeftOut", namespace=None
        )
        assert "Network green: spec.stormLimit" in condition(found, "InSync")["message"]
        assert "all that its version knows of" in here.sync()
        assert bindings(here) == had
        host.patch("network", green, {"spec": {"stormLimit": None}}, None)

        return_to_own(host)
        serial = 'class SmartNICStatus(Status):\n    """What the NIC is."""\n'
        newer = serial + '    firmware: str | None = "24.1"\n'
        become(nic, "9.0.0", Edit("resources/smartnic.py", serial, newer))
        restart(pair, host, nic)
        nic.wait_for("smartnic", NIC, lambda one: dig(one, "status", "firmware") == "24.1", namespace=None)
        await_skew(here, "True", f"the NIC runs Carmel 9.0.0, this host {__version__}")
        shown = host.wait_for(
            "smartnic",
            NIC,
            lambda one: is_ready(one) and condition(one, "InSync").get("status") == "True",
            namespace=None,
        )
        assert "firmware" not in shown["status"]
        assert bindings(here) == had

        return_to_own(nic)
        restart(pair, nic)
        await_skew(here, "False", f"the NIC runs Carmel {__version__}, this host {__version__}")
        host.delete("network", green, None)
        here.sync()
    assert pinged.lost == 0, pinged
    assert bindings(here) == had


def test_a_power_cut_of_the_host(here: Offloaded, both: str) -> None:
    """The NIC goes on: ports and policies stay as they are. What is forbidden is sent from outside all the time."""
    pair = here.pair
    host, nic = pair.host, pair.nic
    only_a = [{"peers": [{"vmSelector": {"matchLabels": {"app": "a"}}}]}]
    spec = {"vmSelector": {"matchLabels": {"app": "b"}}, "ingress": only_a}
    nic.create("firewallpolicy", {"metadata": {"name": "only-a"}, "spec": spec})
    nic.wait_for("firewallpolicy", "only-a", lambda one: condition(one, "Effective").get("status") == "True")
    assert here.pings("a", ADDRESSES["b"]) == 3
    write_blocks(pair, both, BLOCKS, 200, 20)
    host.wait_for_console(both, "wrote=219")
    had, launches, bridge = bindings(here), launch_ids(here), here.bridge()
    ping = f"ping -i 0.2 {ADDRESSES['b']} >/tmp/forbidden 2>&1 & echo $! >/tmp/forbidden.pid"
    nic.shell(f"alias ip=/usr/bin/ip\nip netns exec out {ping}")

    pair.power_off(host)
    # By the NIC's own shell: the way to its API leads over the host.
    assert plugged_by_the_nic(here) == {port: (function, bridge) for port, function in had.items()}
    assert "only-a" in nic.shell("carmel get firewallpolicies")

    pair.power_on(host)
    for name, address in ADDRESSES.items():
        host.wait_for("vm", name, lambda vm: is_ready(vm) and dig(vm, "status", "launchID") not in launches)
        here.await_guest(name, address, starts=2)
        assert dig(host.get("vm", name), "status", "lastTermination", "reason") == "HostReboot"
    # Those that run have what they had; the one that does not has nothing.
    nic.wait_for("port", f"{both}-eth0", lambda port: dig(port, "spec", "function") is None)
    freed = had.pop(f"{both}-eth0")
    assert bindings(here) == had
    host.wait_for("smartnic", NIC, lambda _one: freed in functions_in_state(here, "Free"), namespace=None)
    assert not has_power("PoweredOn")(host.get("vm", both))
    # Of the host's kernel, for its own word is not enough: nothing else is with vfio-pci.
    assert len(re.findall(r":\d\d\.\d", host.shell("ls /sys/bus/pci/drivers/vfio-pci"))) == len(had)
    before = {name: here.nic_counts(here.interface(name)) for name in ADDRESSES}
    assert here.pings("a", ADDRESSES["b"], count=20) == 20
    after = {name: here.nic_counts(here.interface(name)) for name in ADDRESSES}
    for name in ADDRESSES:
        assert all(new - old >= 20 for old, new in zip(before[name], after[name], strict=True))
    heard = nic.shell("kill -INT $(cat /tmp/forbidden.pid); sleep 1; cat /tmp/forbidden")
    assert "bytes from" not in heard, heard
    assert " 0 packets received" in heard, heard
    nic.delete("firewallpolicy", "only-a")

    # When that one runs again it has both of its functions, and what was on its disk.
    host.patch("vm", both, {"spec": {"restartRequestedAt": format_time(datetime.now(UTC))}})
    here.await_guest(both, C_ADDRESS, starts=2)
    assert here.pings(both, ADDRESSES["a"]) == 3
    check_blocks(pair, both, BLOCKS, 20, first=200)


# -- what is so -------------------------------------------------------------------------------------------------------
def functions_in_state(here: Offloaded, state: str) -> set[str]:
    """Of those that carry packets, as the host has them."""
    listed = dig(here.pair.host.get("smartnic", NIC, None), "status", "functions") or ()
    return {one["id"] for one in listed if one["kind"] == "net" and one["state"] == state}


def bindings(here: Offloaded) -> dict[str, str]:
    """By port, the function that is plugged into it on the NIC."""
    listed = here.pair.nic.client.list(here.pair.nic.client.kind("port"), Selection("default"))["items"]
    return {one["metadata"]["name"]: one["spec"]["function"] for one in listed if one["spec"].get("function")}


def plugged_by_the_nic(here: Offloaded) -> dict[str, tuple[str, str]]:
    """By port, its function by the NIC's API, and the bridge that its representor is in by the NIC's kernel."""
    nic = here.pair.nic
    found: dict[str, tuple[str, str]] = {}
    for port in json.loads(nic.shell("carmel get ports -o json"))["items"]:
        master = nic.shell(f"readlink /sys/class/net/{port['status']['interface']}/master").strip()
        found[port["metadata"]["name"]] = (port["spec"]["function"], master.rpartition("/")[2])
    return found


def launch_ids(here: Offloaded) -> set[str]:
    return {str(dig(here.pair.host.get("vm", name), "status", "launchID")) for name in ADDRESSES}


def await_skew(here: Offloaded, status: str, said: str) -> None:
    """Until the host says of the versions that they differ, or not, and which they are."""

    def says(smart_nic: JsonObject) -> bool:
        found = condition(smart_nic, "VersionSkew")
        return found.get("status") == status and str(found.get("message")).startswith(said)

    here.pair.host.wait_for("smartnic", NIC, says, namespace=None)
