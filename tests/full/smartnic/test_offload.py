"""Network offload in a lab, for real: vfio, SMMU, representors; every frame of a guest passes the SmartNIC's switch."""

from __future__ import annotations

import re
import time

import pytest

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import is_ready
from tests.full.smartnic import generator
from tests.full.smartnic.offloaded import ADDRESSES, NETWORK, OUTSIDE, Offloaded, bring_up
from tests.full.smartnic.pair import NIC, Pair, await_answer
from tests.system.lab.machine import LabMachine

_TAPS = "/usr/bin/ip -d link show group 4410700"
"""Of the host's links those that Carmel made."""

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def here(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Offloaded:
    module_bytes = generator.make_image(pair.host, tmp_path_factory.mktemp("files"))
    here = bring_up(pair, disks=[generator.DISK])
    for name in ADDRESSES:
        generator.load(pair.host, name, module_bytes)
    return here


def test_guests_have_functions_and_reach_each_other_only_through_the_nic(here: Offloaded) -> None:
    host, nic = here.pair.host, here.pair.nic
    functions = {dig(host.get("port", f"{name}-eth0"), "status", "function") for name in ADDRESSES}
    assert len(functions) == 2
    # The host's kernel has given them away: QEMU has vfio's groups open, and there is no tap.
    process = host.process(host.get("vm", "a"))
    assert any(device.startswith("/dev/vfio/") for device in process.devices)
    assert "/dev/net/tun" not in process.devices
    before = {name: here.nic_counts(here.interface(name)) for name in ADDRESSES}
    assert here.pings("a", ADDRESSES["b"], count=20) == 20
    assert here.pings("a", OUTSIDE) == 3
    after = {name: here.nic_counts(here.interface(name)) for name in ADDRESSES}
    for name in ADDRESSES:
        assert all(new - old >= 20 for old, new in zip(before[name], after[name], strict=True))
    bridge = here.bridge()
    nic.shell(f"/usr/bin/ip link set {bridge} down")
    assert here.pings("a", ADDRESSES["b"]) == 0
    nic.shell(f"/usr/bin/ip link set {bridge} up")
    assert here.pings("a", ADDRESSES["b"], count=5) > 0


def test_what_the_nic_counts_is_what_was_sent(here: Offloaded) -> None:
    def counted() -> int:
        return int(dig(here.port("b"), "status", "counters", "receivedPackets") or 0)

    host = here.pair.host
    mac = host.guest_shell("b", "cat /sys/class/net/eth0/address").strip()
    before = here.nic_counts(here.interface("b"))[1]
    frames = ("count 500", "pkt_size 200", "ratep 500", f"dst {ADDRESSES['b']}", f"dst_mac {mac}")
    said = host.guest_shell("a", generator.script("eth0", *frames, f"src_min {ADDRESSES['a']}"))
    assert "errors: 0" in said, said
    sent = here.nic_counts(here.interface("b"))[1]
    # Those, and what the two ask each other meanwhile.
    assert 500 <= sent - before <= 520
    here.pair.nic.wait_for("port", "b-eth0", lambda _port: counted() >= sent)


def test_a_policy_of_the_nic_drops_and_allows_within_a_second(here: Offloaded) -> None:
    nic = here.pair.nic
    spec = {"vmSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"ports": [{"protocol": "TCP", "port": 80}]}]}
    assert here.pings("a", ADDRESSES["b"]) == 3
    nic.create("firewallpolicy", {"metadata": {"name": "only-web"}, "spec": spec})
    nic.wait_for("firewallpolicy", "only-web", lambda one: condition(one, "Effective").get("status") == "True")
    assert here.pings("a", ADDRESSES["b"]) == 0
    assert here.pings("a", OUTSIDE) == 3
    ping = {"protocol": "ICMP"}
    nic.patch("firewallpolicy", "only-web", {"spec": {"ingress": [{"ports": [ping]}]}})
    deadline = time.monotonic() + 30
    while here.pings("a", ADDRESSES["b"], count=1) == 0:
        assert time.monotonic() < deadline
    nic.delete("firewallpolicy", "only-web")


def test_spoofed_frames_never_leave(here: Offloaded) -> None:
    host, nic = here.pair.host, here.pair.nic
    heard, own = "cat /sys/class/net/out0/statistics/tx_packets", ADDRESSES["a"]
    # Another's address, by IP and by ARP.
    host.guest_shell("a", "ip addr add 10.99.0.77/24 dev eth0")
    before = int(nic.shell(heard))
    assert here.pings("a", OUTSIDE, words="-I 10.99.0.77") == 0
    assert int(nic.shell(heard)) - before <= 3  # what others say meanwhile
    host.guest_shell("a", "ip addr del 10.99.0.77/24 dev eth0")
    # Another's MAC address.
    mac = host.guest_shell("a", "cat /sys/class/net/eth0/address").strip()
    host.guest_shell("a", "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:99; ip link set eth0 up")
    assert here.pings("a", OUTSIDE) == 0
    host.guest_shell("a", f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up")
    # A VLAN that is not the port's: none of 50 tagged frames goes out, nor to the other guest.
    out, other = int(nic.shell(heard)), here.nic_counts(here.interface("b"))[1]
    frames = ("count 50", "pkt_size 100", "vlan_id 7", f"dst {OUTSIDE}", "dst_mac ff:ff:ff:ff:ff:ff", f"src_min {own}")
    said = host.guest_shell("a", generator.script("eth0", *frames))
    assert "errors: 0" in said, said
    assert int(nic.shell(heard)) - out < 25
    assert here.nic_counts(here.interface("b"))[1] - other < 25
    assert here.pings("a", OUTSIDE, count=5) > 0
    nic.wait_for("port", "a-eth0", lambda port: int(dig(port, "status", "counters", "droppedPackets") or 0) > 0)


def test_a_nic_becomes_software_and_back_while_its_guest_runs(here: Offloaded) -> None:
    """The SmartNIC goes on switching it, by the same port: guard, counters and traffic are its."""
    host = here.pair.host
    host.guest_shell("b", f"ping {ADDRESSES['a']} >/tmp/pings 2>&1 & echo $! >/tmp/pid")
    before = host.get("vm", "a")
    assert "set their dataPlane in spec.networks to Host" in condition(before, "LiveMigratable")["message"]
    for plane, movable in (("Host", "True"), ("SmartNIC", "False")):
        change_over(here, plane)
        vm = wait_movable(host, movable)
        assert dig(vm, "status", "launchID") == dig(before, "status", "launchID")
        assert [one["mac"] for one in vm["status"]["networks"]] == [one["mac"] for one in before["status"]["networks"]]
        devices = host.process(vm).devices
        software = plane == "Host"
        assert any(one.startswith("/dev/vfio/") for one in devices) is not software
        assert any(one.startswith("/dev/tap") for one in devices) is software
        assert ("/dev/vhost-net" in devices) is software
        assert ("macvtap" in host.shell(_TAPS)) is software
        counted = here.nic_counts(here.interface("a"))
        assert here.pings("a", ADDRESSES["b"], count=20) == 20
        assert here.pings("a", OUTSIDE) == 3
        now = here.nic_counts(here.interface("a"))
        assert all(new - old >= 20 for old, new in zip(counted, now, strict=True))
        # Another's address does not get past the NIC.
        host.guest_shell("a", "ip addr add 10.99.0.77/24 dev eth0")
        assert here.pings("a", OUTSIDE, words="-I 10.99.0.77") == 0
        host.guest_shell("a", "ip addr del 10.99.0.77/24 dev eth0")
    heard = host.guest_shell("b", "kill -INT $(cat /tmp/pid); sleep 1; tail -n 3 /tmp/pings")
    assert re.search(r" [1-9][0-9]* packets received", heard), heard


def wait_movable(host: LabMachine, status: str) -> JsonObject:
    """Guest a, once that is said of whether it can be moved while it runs."""
    return host.wait_for("vm", "a", lambda vm: condition(vm, "LiveMigratable").get("status") == status)


def change_over(here: Offloaded, plane: str) -> None:
    """Have guest a's NIC be that, and the guest configure it anew, as it is a new one to it."""
    host = here.pair.host
    nic = {**host.get("vm", "a")["spec"]["networks"][0], "dataPlane": plane}
    host.patch("vm", "a", {"spec": {"networks": [nic]}})
    host.wait_for(
        "vm",
        "a",
        lambda vm: (
            condition(vm, "NICsPlugged").get("status") != "False"
            and [one["dataPlane"] for one in dig(vm, "status", "networks") or ()] == [plane]
        ),
    )
    configure(here)


def configure(here: Offloaded) -> None:
    """Guest a's NIC, which is a new one to it."""
    here.pair.nic.wait_for("port", "a-eth0", is_ready)
    here.pair.host.guest_shell(
        "a",
        "n=0; until [ -e /sys/class/net/eth0 ] || [ $n -gt 60 ]; do n=$((n+1)); sleep 1; done\n"
        f"ip addr flush dev eth0; ip addr add {ADDRESSES['a']}/24 dev eth0; ip link set eth0 up",
    )


def test_a_nic_in_software_comes_back_after_its_function_was_away(here: Offloaded) -> None:
    """Its driver lets go of it, and with its interface goes what joins it to the NIC: for that, nobody is needed."""
    host = here.pair.host
    change_over(here, "Host")
    try:
        before = function_tap(host)
        function = dig(host.get("vm", "a"), "status", "networks", 0, "function")
        [address] = [
            one["pciAddress"]
            for one in host.get("smartnic", NIC, namespace=None)["status"]["functions"]
            if one["id"] == function
        ]
        host.shell(f"echo {address} >/sys/bus/pci/devices/{address}/driver/unbind")
        host.shell(
            f"n=0; until t=$({_TAPS} | grep cmf) && [ ${{t%%:*}} != {before} ] || [ $n -gt 60 ]; do\n"
            "n=$((n+1)); sleep 1; done"
        )
        assert function_tap(host) not in {None, before}
        configure(here)
        assert here.pings("a", ADDRESSES["b"]) == 3
        networks = dig(host.get("vm", "a"), "status", "networks")
        assert [(one["function"], one["dataPlane"]) for one in networks] == [(function, "Host")]
    finally:
        change_over(here, "SmartNIC")


def function_tap(host: LabMachine) -> str | None:
    """The number that the kernel gave to the one macvtap that there is."""
    found = re.search(r"^([0-9]+): cmf", host.shell(_TAPS), re.MULTILINE)
    return found[1] if found is not None else None


def test_root_of_the_host_can_neither_see_nor_change_it(here: Offloaded) -> None:
    """With the host's own identity, which lies in its store for whoever is root there."""
    script = """cat >/tmp/try.py <<'P'
import base64, json, ssl, subprocess, urllib.error, urllib.request
secret = json.loads(subprocess.check_output(["carmel", "get", "secret", "-n", "carmel-system", "-o", "json"]))
data = next(one["data"] for one in secret["items"] if "tls.key" in one["data"])
for key in ("ca.crt", "tls.crt", "tls.key"):
    open("/tmp/" + key, "wb").write(base64.b64decode(data[key]))
tls = ssl.create_default_context(cafile="/tmp/ca.crt")
tls.load_cert_chain("/tmp/tls.crt", "/tmp/tls.key")
group = "/apis/carmel.dev/v1alpha1"
def ask(method, path, body=None, kind="application/merge-patch+json"):
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("https://192.168.100.2:17443" + path, raw, {"Content-Type": kind}, method=method)
    try:
        return urllib.request.urlopen(request, context=tls).status
    except urllib.error.HTTPError as error:
        return error.code
port = group + "/namespaces/default/ports/b-eth0"
print("TRIED", ask("GET", port),
 ask("GET", group + "/namespaces/default/firewallpolicies"),
 ask("GET", "/api/v1/namespaces/carmel-system/secrets"),
 ask("PATCH", port, {"spec": {"vlan": 7}}),
 ask("PATCH", port, {"metadata": {"labels": {"app": "c"}}}),
 ask("DELETE", port),
 ask("PATCH", group + "/networks/blue", {"spec": {"mtu": 9000}}),
 ask("PATCH", group + "/smartnics/lab-smartnic-nic", {"spec": {"trust": "Full"}}),
 ask("POST", group + "/namespaces/default/firewallpolicies", {"metadata": {"name": "x"}}, "application/json"))
P
/usr/lib/carmel/bin/python3 /tmp/try.py; rm -f /tmp/try.py /tmp/ca.crt /tmp/tls.*"""
    before = here.port("b")["spec"]
    said = here.pair.host.shell(script)
    [tried] = [line for line in said.splitlines() if line.startswith("TRIED")]
    assert tried.split()[1:] == ["200", *["403"] * 8], said
    assert here.port("b")["spec"] == before
    assert here.pings("a", ADDRESSES["b"]) == 3


def test_traffic_goes_on_when_the_nics_daemon_is_killed(here: Offloaded) -> None:
    nic = here.pair.nic
    here.pair.kill_daemon(nic)
    assert here.pings("a", ADDRESSES["b"], count=10) == 10
    await_answer(nic)
    nic.wait_for("port", "a-eth0", is_ready)
    assert here.pings("a", ADDRESSES["b"], count=10) == 10


def test_a_power_cut_of_the_nic_leaves_guests_alive_and_no_gap_in_the_policy(here: Offloaded) -> None:
    """Pings that a policy forbids are sent all the time: before, while it is off, and while it comes back."""
    pair = here.pair
    spec = {"vmSelector": {"matchLabels": {"app": "b"}}, "ingress": []}
    pair.nic.create("firewallpolicy", {"metadata": {"name": "nobody"}, "spec": spec})
    pair.nic.wait_for("firewallpolicy", "nobody", lambda one: condition(one, "Effective").get("status") == "True")
    launches = {name: dig(pair.host.get("vm", name), "status", "launchID") for name in ADDRESSES}
    pair.host.guest_shell("a", f"ping {ADDRESSES['b']} >/tmp/pings 2>&1 & echo $! >/tmp/pid")
    pair.power_off(pair.nic)
    pair.power_on(pair.nic)
    here.make_outside()
    pair.nic.wait_for("network", NETWORK, is_ready, namespace=None)
    for name in ADDRESSES:
        pair.nic.wait_for("port", f"{name}-eth0", is_ready)
    deadline = time.monotonic() + 120
    while here.pings("a", OUTSIDE, count=1) == 0:
        assert time.monotonic() < deadline
    heard = pair.host.guest_shell(
        "a", "kill -INT $(cat /tmp/pid); sleep 1; grep -c 'bytes from' /tmp/pings; tail -n 3 /tmp/pings"
    )
    assert heard.split()[0] == "0", heard
    assert {name: dig(pair.host.get("vm", name), "status", "launchID") for name in ADDRESSES} == launches
    pair.nic.delete("firewallpolicy", "nobody")
    deadline = time.monotonic() + 60
    while here.pings("a", ADDRESSES["b"], count=1) == 0:
        assert time.monotonic() < deadline
