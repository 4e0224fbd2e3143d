"""What a real NIC lets its host do, over mutual TLS, and what not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from carmel.client.objects import dig
from carmel.errors import CarmelError
from carmel.run import find_program
from tests.system.smartnic.nic import API, PORTS, SUBNET, Nic, port

POLICY = {"metadata": {"name": "p"}, "spec": {"vmSelector": {}}}
NAMESPACES, SECRETS = "/api/v1/namespaces", "/api/v1/namespaces/default/secrets"
POLICIES = f"{API}/namespaces/default/firewallpolicies"


def test_a_restricted_host_can_bind_and_read_and_that_is_all(nic: Nic) -> None:
    nic.make_network()
    nic.make_port(0)
    own = f"{API}/smartnics/{nic.own_name()}"
    may = [("GET", own), ("GET", f"{API}/networks/lan"), ("GET", f"{PORTS}/vm0-eth0"), ("GET", f"{API}/ports")]
    assert [nic.as_host(*one).status for one in may] == [200] * len(may)
    assert nic.bind("vm0-eth0", "pf0vf0").status == 201
    change = {"spec": {"addresses": [f"{SUBNET}.66"], "sourceGuard": False}}
    must_not = [
        ("PATCH", f"{PORTS}/vm0-eth0", change),
        ("PATCH", f"{PORTS}/vm0-eth0", {"metadata": {"labels": {"app": "trusted"}}}),
        ("PATCH", f"{PORTS}/vm0-eth0/status", {"status": {"counters": None}}),
        ("DELETE", f"{PORTS}/vm0-eth0", None),
        ("POST", PORTS, port(1)),
        ("PATCH", own, {"spec": {"trust": "Full"}}),
        ("PATCH", f"{API}/networks/lan", {"spec": {"mtu": 1400}}),
        ("DELETE", f"{API}/networks/lan", None),
        ("GET", POLICIES, None),
        ("POST", POLICIES, POLICY),
        ("GET", SECRETS, None),
        ("GET", "/api/v1/namespaces/carmel-system/secrets", None),
        ("GET", "/api/v1/events", None),
        ("GET", NAMESPACES, None),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {}),
    ]
    assert [(one[1], nic.as_host(*one).status) for one in must_not] == [(one[1], 403) for one in must_not]
    metrics = nic.as_host("GET", "/metrics").text
    assert "carmel_node_cpu_seconds_total" in metrics
    assert "carmel_store_objects" not in metrics


def test_with_full_trust_it_writes_what_is_switched_and_no_more(nic: Nic) -> None:
    nic.patch("smartnic", nic.own_name(), {"spec": {"trust": "Full"}}, None)
    nic.wait_for("smartnic", nic.own_name(), lambda one: dig(one, "status", "trust") == "Full", namespace=None)
    network = {"metadata": {"name": "lan"}, "spec": {"provider": "nat", "nat": {"subnet": f"{SUBNET}.0/24"}}}
    may = [
        ("POST", f"{API}/networks", network),
        ("POST", PORTS, port(0, function="pf0vf0")),
        ("POST", PORTS, port(1, function="pf0vf1")),
        ("POST", NAMESPACES, {"metadata": {"name": "shop"}}),
    ]
    assert [nic.as_host(*one).status for one in may] == [201] * len(may)
    for number in range(2):
        nic.wait_plugged(number)
    assert nic.reach()
    must_not = [
        ("GET", SECRETS, None),
        ("PATCH", f"{API}/smartnics/{nic.own_name()}", {"spec": {"trust": "Full"}}),
        ("DELETE", f"{NAMESPACES}/shop", None),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {}),
    ]
    assert [nic.as_host(*one).status for one in must_not] == [403] * len(must_not)
    # And taken away again: at once.
    nic.patch("smartnic", nic.own_name(), {"spec": {"trust": "Restricted"}}, None)
    assert nic.as_host("DELETE", f"{PORTS}/vm0-eth0").status == 403


def test_the_invitation_that_counts_is_the_last_one(nic: Nic) -> None:
    earlier = {file.name: file.read_text() for file in nic.keys.iterdir()}
    words = ["-c", "import sys; from carmel.cli.main import main; sys.exit(main())", "smartnic", "invite"]
    told = subprocess.run(
        [sys.executable, *words, "--host", "server-1"],
        check=True,
        capture_output=True,
        env=nic.environment(),
        text=True,
    )
    assert "kind: SmartNIC" in told.stdout
    refused = nic.as_host("GET", f"{API}/ports")
    assert (refused.status, refused.code) == (401, "HostNotInvited")
    nic.invite()
    assert {file.name: file.read_text() for file in nic.keys.iterdir()} != earlier
    assert nic.as_host("GET", f"{API}/ports").status == 200


def test_it_takes_no_vms_and_keeps_no_disks(nic: Nic) -> None:
    for word in ("virtualmachine", "volume", "datastore"):
        kind = nic.client.kind(word)
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": {}}
        with pytest.raises(CarmelError) as refused:
            nic.client.create(kind, "default" if kind.namespaced else None, obj)
        assert refused.value.code == "NotOnSmartNIC"


def test_a_conflict_is_told_and_changes_nothing(nic: Nic) -> None:
    nic.plug_both()
    refused = nic.bind("vm0-eth0", "pf0vf1")
    assert (refused.status, refused.code) == (409, "FunctionInUse")
    assert nic.reach()


@pytest.mark.skipif(find_program("faketime") is None, reason="needs faketime")
def test_a_nic_whose_clock_is_in_2001(nic: Nic) -> None:
    """It has no battery. Its certificates were made when it knew what time it was."""
    nic.plug_both()
    nic.kill()
    words = nic.prefix
    nic.prefix = (*words, "faketime", "--exclude-monotonic", "2001-01-01 00:00:00")
    nic.start()
    shown = nic.as_host("GET", f"{API}/smartnics/{nic.own_name()}")
    assert shown.status == 200
    nic.bind("vm0-eth0", None)
    assert nic.bind("vm0-eth0", "pf0vf0").status == 201
    nic.wait_plugged(0)
    assert nic.reach()


@pytest.mark.skipif(find_program("faketime") is None, reason="needs faketime")
def test_and_one_that_made_its_certificates_then(nic: Nic) -> None:
    nic.kill()
    for file in [*nic.paths.pki.glob("*.crt"), *nic.paths.pki.glob("*.key"), nic.paths.pki / "server.json"]:
        file.unlink()
    nic.prefix = (*nic.prefix, "faketime", "--exclude-monotonic", "2001-01-01 00:00:00")
    nic.start()
    nic.invite()
    assert nic.as_host("GET", f"{API}/smartnics/{nic.own_name()}").status == 200
