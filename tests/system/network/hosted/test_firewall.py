"""Policies on real guests' ports, by a real daemon. Where the kernel tracks no connections on bridges, that is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import is_ready, not_ready_because
from tests.programs import carmel
from tests.system.network.hosted.site import OUTSIDE, Site, eventually

_TRACKING = "table bridge probe { chain one { type filter hook forward priority 0; ct state new accept; }; }"


def _tracks(site: Site) -> bool:
    try:
        return site.host.can("nft", _TRACKING)
    finally:
        site.host.can("nft", "delete", "table", "bridge", "probe")


@pytest.fixture
def tracking(site: Site) -> Site:
    if not _tracks(site):
        pytest.skip("this kernel tracks no connections on bridges (nf_conntrack_bridge)")
    return site


@pytest.fixture
def untracking(site: Site) -> Site:
    if _tracks(site):
        pytest.skip("this kernel tracks connections on bridges")
    return site


@pytest.fixture
def served(site: Site) -> Iterator[Site]:
    """Somebody outside answers at port 80."""
    with site.outside.running("busybox", "httpd", "-f", "-p", f"{OUTSIDE}:80", "-h", "/nowhere"):
        yield site


def policy(site: Site, name: str, **spec: object) -> JsonObject:
    body = {"metadata": {"name": name}, "spec": {"vmSelector": {"matchLabels": {"app": "web"}}, **spec}}
    return site.daemon.create("firewallpolicy", body)


def label(site: Site, vm: str) -> None:
    site.daemon.patch("vm", vm, {"metadata": {"labels": {"app": "web"}}})


def test_a_vm_that_a_policy_selects_is_not_started_without_a_firewall(untracking: Site) -> None:
    site = untracking
    site.nat()
    policy(site, "web", ingress=[])
    vm = site.daemon.micro_vm("w", networks=[{"name": "eth0", "networkRef": {"name": "inner"}}])
    vm["metadata"]["labels"] = {"app": "web"}
    site.daemon.create("vm", vm)
    refused = site.daemon.wait_for("vm", "w", not_ready_because("NoBridgeTracking"))
    assert "this kernel cannot track connections on a bridge" in condition(refused, "Ready")["message"]
    assert site.taps() == set()
    # One that none selects has everything allowed, with or without.
    site.start("other", {"name": "eth0", "networkRef": {"name": "inner"}})
    site.daemon.wait_for("vm", "other", is_ready)
    # A policy that comes later, for one that runs, says what it cannot do.
    label(site, "other")
    site.daemon.wait_for("firewallpolicy", "web", not_ready_because("NoBridgeTracking"))


def test_a_policy_drops_and_allows_within_a_second(tracking: Site, served: Site) -> None:
    site = tracking
    site.nat()
    site.boot()
    asked = f"wget -q -T 1 -O /dev/null http://{OUTSIDE}/ 2>&1 | grep -q 404"
    with site.console() as console:
        assert console.does(asked)
        label(site, "w")
        policy(
            site, "web", policyTypes=["Egress"], egress=[{"name": "dns", "ports": [{"port": 53, "protocol": "UDP"}]}]
        )
        began = time.monotonic()
        site.daemon.wait_for("firewallpolicy", "web", lambda one: dig(one, "status", "ports") == 1)
        assert time.monotonic() - began < 10
        assert eventually(lambda: not console.does(asked))
        allowed = [{"peers": [{"ipBlock": {"cidr": f"{OUTSIDE}/32"}}], "ports": [{"port": 80}]}]
        site.daemon.patch("firewallpolicy", "web", {"spec": {"egress": allowed}})
        assert eventually(lambda: console.does(asked))
        # The daemon is killed: what was in force is in force.
        site.daemon.patch("firewallpolicy", "web", {"spec": {"egress": []}})
        assert eventually(lambda: not console.does(asked))
        site.daemon.kill()
        assert not console.does(asked)
        site.daemon.start()
        assert not console.does(asked)
        site.daemon.delete("firewallpolicy", "web")
        assert eventually(lambda: console.does(asked))


def test_which_rule_decides_is_explained(site: Site, tmp_path: Path) -> None:
    site.nat()
    site.start("w", {"name": "eth0", "networkRef": {"name": "inner"}})
    site.daemon.wait_for("vm", "w", is_ready)
    rule = {"name": "no-labs", "action": "Deny", "peers": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    policy(site, "web", ingress=[rule, {"ports": [{"port": 443}]}])
    ask = carmel(site.daemon, tmp_path)
    before = ask("explain", "port", "w-eth0", "--from", "10.9.0.7:443/tcp")
    assert before.startswith("Allowed: ingress of port default/w-eth0 from 10.9.0.7:443/tcp")
    assert "no policy selects its VM" in before
    label(site, "w")
    denied = ask("explain", "port", "w-eth0", "--from", "10.9.0.7:443/tcp")
    assert denied.startswith("Denied: ingress of port default/w-eth0 from 10.9.0.7:443/tcp")
    assert "because ingress[0] (no-labs) of policy default/web (priority 1000) says Deny" in denied
    allowed = ask("explain", "port", "w-eth0", "--from", "10.8.0.7:443/tcp")
    assert allowed.startswith("Allowed")
