"""Real guests on a bridge with an uplink, by a real daemon: VLANs, addresses that are learned, uplinks taken over.

Needs what the kernels of distributions have and small ones may lack: VLAN filtering in bridges, and 802.1Q for the
other side.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import is_ready, not_ready_because
from tests.programs import carmel
from tests.system.network.hosted.site import HERE, OUTSIDE, Console, Site, eventually

_PROBES = {
    "VLAN filtering": "name probe type bridge vlan_filtering 1",
    "802.1Q": "link up0 name probe type vlan id 9",
}


@pytest.fixture(autouse=True)
def _kernel(site: Site) -> None:
    for feature, words in _PROBES.items():
        if not site.host.can("ip", "link", "add", *words.split()):
            pytest.skip(f"this kernel has no {feature}")
        site.host.ip("link delete probe")


@pytest.fixture
def bare(site: Site) -> Site:
    """The uplink has no addresses."""
    site.host.ip("addr flush dev up0")
    return site


def lan(site: Site, name: str = "lan", **bridge: object) -> JsonObject:
    return site.network(name, provider="bridge", bridge={"uplinks": ["up0"], **bridge})


def give(console: Console, address: str) -> None:
    console.run(f"ip addr flush dev eth0; ip addr add {address}/24 dev eth0")


def boot(site: Site, name: str, **nic: object) -> None:
    """Nobody gives it an address: its guest is up when it gave up asking for one."""
    site.start(name, {"name": "eth0", "networkRef": {"name": "lan"}, **nic})
    site.daemon.wait_for_console(name, f"ready nonce={name}")


def test_guests_are_in_their_vlans_and_their_addresses_are_learned(bare: Site) -> None:
    site = bare
    assert is_ready(lan(site, vlan=7))
    boot(site, "a")
    boot(site, "b", vlan=8, trunk=[9])
    site.outside.ip("link add link out0 name out7 type vlan id 7")
    site.outside.ip("addr add 203.0.113.1/24 dev out7")
    site.outside.ip("link set out7 up")
    with site.console("a") as a, site.console("b") as b:
        give(a, "203.0.113.7")
        give(b, "203.0.113.8")
        assert a.does("ping -c 1 -W 5 203.0.113.1")
        assert not b.does("ping -c 1 -W 1 203.0.113.1")
        assert not a.does("ping -c 1 -W 1 203.0.113.8")
        learned = site.daemon.wait_for("port", "a-eth0", lambda port: bool(dig(port, "status", "addresses")))
        assert learned["status"]["addresses"] == ["203.0.113.7"]
        site.daemon.wait_for("vm", "a", lambda vm: dig(vm, "status", "addresses") == ["203.0.113.7"])
        # Into the other's VLAN, while it runs.
        nic = {"name": "eth0", "networkRef": {"name": "lan"}, "vlan": 7}
        site.daemon.patch("vm", "b", {"spec": {"networks": [nic]}})
        assert eventually(lambda: b.does("ping -c 1 -W 1 203.0.113.1"))
        assert b.does("ping -c 1 -W 5 203.0.113.7")
    site.outside.ip("link delete out7")


def test_networks_of_one_uplink_share_it_and_the_same_vlan_is_refused(bare: Site) -> None:
    assert is_ready(lan(bare))
    assert is_ready(lan(bare, "seven", vlan=7))
    assert condition(lan(bare, "again", vlan=7), "Ready")["reason"] == "NetworksOverlap"
    assert len([name for name in bare.host.links() if name.startswith("cmb")]) == 1


def test_the_only_way_in_is_refused_and_nothing_changes(site: Site) -> None:
    refused = lan(site)
    assert condition(refused, "Ready")["reason"] == "UplinkInUse"
    assert "up0 has addresses of this host" in condition(refused, "Ready")["message"]
    assert site.host.links() == {"lo", "up0"}
    assert site.outside.can("busybox", "ping", "-c", "1", "-W", "5", HERE)


def test_a_takeover_is_confirmed_and_given_back_with_the_network(site: Site, tmp_path: Path) -> None:
    waiting = lan(site, takeover=True, confirmSeconds=60)
    assert condition(waiting, "Ready")["reason"] == "WaitingForConfirmation"
    assert eventually(lambda: site.outside.can("busybox", "ping", "-c", "1", "-W", "1", HERE))
    ask = carmel(site.daemon, tmp_path)
    assert ask("network", "confirm", "lan") == "lan stays as it is.\n"
    confirmed = site.daemon.wait_for("network", "lan", is_ready, namespace=None)
    assert dig(confirmed, "status", "takeover", "phase") == "Confirmed"
    # The host is reached, and reaches, by the bridge.
    assert f"inet {HERE}" in site.host.run("ip", "addr", "show", "dev", confirmed["status"]["interface"])
    boot(site, "a")
    with site.console("a") as a:
        give(a, "192.0.2.9")
        assert a.does(f"ping -c 1 -W 5 {OUTSIDE}")
    site.daemon.delete_all_vms()
    site.daemon.delete("network", "lan", None)
    site.daemon.wait_gone("network", "lan", None)
    assert f"inet {HERE}" in site.host.run("ip", "addr", "show", "dev", "up0")


def test_what_nobody_confirms_comes_back_and_is_not_tried_again(site: Site, tmp_path: Path) -> None:
    lan(site, takeover=True, confirmSeconds=5)
    site.daemon.kill()
    assert eventually(lambda: f"inet {HERE}" in site.host.run("ip", "addr", "show", "dev", "up0"))
    site.daemon.start()
    back = site.daemon.wait_for("network", "lan", not_ready_because("RolledBack"), namespace=None)
    assert dig(back, "status", "takeover", "phase") == "RolledBack"
    assert "the uplink up0 was put back" in condition(back, "Ready")["message"]
    assert site.outside.can("busybox", "ping", "-c", "1", "-W", "5", HERE)
    site.start("w", {"name": "eth0", "networkRef": {"name": "lan"}})
    site.daemon.wait_for("vm", "w", not_ready_because("WaitingForNetwork"))
    refused = carmel(site.daemon, tmp_path).run("network", "confirm", "lan")
    assert refused.status != 0
    assert "the uplink up0 was put back" in refused.stderr
    site.daemon.patch("network", "lan", {"spec": {"bridge": {"confirmSeconds": 600}}}, None)
    site.daemon.wait_for("network", "lan", not_ready_because("WaitingForConfirmation"), namespace=None)
