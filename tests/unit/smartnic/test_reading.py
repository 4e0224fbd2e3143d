"""NICs of other versions are understood as far as they go."""

from __future__ import annotations

from carmel.resources.base import JsonObject
from carmel.resources.smartnic import SmartNICMode, Trust
from carmel.smartnic.reading import NicFacts, NicPort, read_nic, read_port


def test_a_newer_nic_has_kinds_and_modes_that_nobody_knows_here() -> None:
    nic: JsonObject = {
        "status": {
            "serial": "MT-1",
            "mode": "Hyper",
            "trust": "Full",
            "temperature": {"celsius": 60},
            "functions": [
                {"id": "pf0sf9", "kind": "rdma", "mac": "52:54:00:00:00:01"},
                {"id": "pf0vf1", "kind": "net", "mac": "52:54:00:ca:01:01", "queues": 8},
                "nonsense",
            ],
            "representors": [{"name": "pf0vf1", "interface": "pf0vf1", "flavour": "pci_vf", "lane": 4}, {}],
            "conditions": [{"type": "Ready", "status": "Perhaps"}],
        }
    }
    facts = read_nic(nic)
    assert (facts.serial, facts.mode, facts.trust, facts.ready) == ("MT-1", None, Trust.FULL, None)
    assert [one.id for one in facts.functions] == ["pf0vf1"]
    assert [one.name for one in facts.representors] == ["pf0vf1"]


def test_an_older_nic_says_less() -> None:
    assert read_nic({}) == NicFacts()
    assert read_nic({"status": {"mode": "DPU", "functions": None, "conditions": "none"}}) == NicFacts(
        mode=SmartNICMode.DPU
    )


def test_trust_that_is_not_known_is_the_least() -> None:
    assert read_nic({"status": {"trust": "Total"}}).trust is Trust.RESTRICTED


def test_ports_are_read_without_believing_their_shape() -> None:
    assert read_port({"metadata": {"name": "a", "namespace": "default"}, "spec": [], "status": 7}) == NicPort(
        "default", "a", "", None, None, ready=False
    )
