"""A SmartNIC's own policies: they select Ports by the Ports' labels, for there are no VMs."""

from __future__ import annotations

import pytest

from carmel.cli.explain_port import explain_port
from carmel.cli.session import Session
from carmel.client.objects import JsonObject, condition, dig
from tests.system.smartnic.nic import SUBNET, Nic


def policy() -> JsonObject:
    ingress = [{"name": "web", "peers": [{"vmSelector": {"matchLabels": {"app": "vm1"}}}], "ports": [{"port": 443}]}]
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "only-web"},
        "spec": {"vmSelector": {"matchLabels": {"app": "vm0"}}, "ingress": ingress},
    }


def test_the_nic_explains_by_its_own_policies_and_ports(nic: Nic, capsys: pytest.CaptureFixture[str]) -> None:
    nic.make_network()
    for number in range(2):
        nic.make_port(number)
    nic.create("firewallpolicy", policy())
    shown = nic.wait_for("firewallpolicy", "only-web", lambda one: dig(one, "status", "selectedVMs") == 1)
    assert condition(shown, "Effective")["reason"] != "SelectsNothing"
    session = Session(nic.client, "default")
    explain_port(session, "vm0-eth0", f"{SUBNET}.11:443/tcp", None, "text")
    assert capsys.readouterr().out.splitlines() == [
        f"Allowed: ingress of port default/vm0-eth0 from {SUBNET}.11:443/tcp",
        "because ingress[0] (web) of policy default/only-web (priority 1000) says Allow",
    ]
    explain_port(session, "vm0-eth0", f"{SUBNET}.12:443/tcp", None, "text")
    assert capsys.readouterr().out.startswith("Denied: ")
