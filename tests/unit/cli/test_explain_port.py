"""``carmel explain port``: which rule decides, from what the API says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import click
import pytest

from carmel.cli.explain_port import explain_port, parse_other_side
from carmel.cli.session import Session
from carmel.errors import NotFound


def obj(name: str, namespace: str | None = "default", **rest: Any) -> dict[str, Any]:
    labels = rest.pop("labels", {})
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, **rest}


def port(name: str, vm: str, address: str) -> dict[str, Any]:
    spec = {
        "networkRef": {"name": "lan"},
        "vmRef": {"name": vm},
        "nic": "eth0",
        "owner": "uid",
        "mac": "52:54:00:00:00:01",
    }
    return obj(name, spec=spec, status={"dataPlane": "Host", "interface": f"cmp{vm}", "addresses": [address]})


class Api:
    """What the command asks of a client."""

    def __init__(self, **objects: list[dict[str, Any]]) -> None:
        self._objects = objects

    def kind(self, word: str) -> SimpleNamespace:
        if word not in self._objects:
            raise NotFound(f"there is no kind {word}")
        return SimpleNamespace(plural=word)

    def get(self, kind: SimpleNamespace, namespace: str, name: str) -> dict[str, Any]:
        for one in self._objects[kind.plural]:
            if (one["metadata"]["namespace"], one["metadata"]["name"]) == (namespace, name):
                return one
        raise NotFound(f"there is no {kind.plural} {name}")

    def list(self, kind: SimpleNamespace, _selection: object) -> dict[str, Any]:
        return {"items": self._objects[kind.plural]}


@pytest.fixture
def session() -> Session:
    web = {
        "vmSelector": {"matchLabels": {"app": "web"}},
        "priority": 20,
        "ingress": [
            {"name": "no-labs", "action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.0/28"}}]},
            {"peers": [{"vmSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 443}]},
        ],
    }
    api = Api(
        ports=[port("web-0", "web", "10.1.0.1"), port("db-0", "db", "10.1.0.2")],
        virtualmachines=[obj("web", labels={"app": "web"}), obj("db", labels={"app": "db"})],
        namespaces=[obj("default", None)],
        firewallpolicies=[obj("web", spec=web), obj("audit", spec={"priority": 5, "ingress": []})],
    )
    return Session(api, "default")  # type: ignore[arg-type]


def said(capsys: pytest.CaptureFixture[str], session: Session, name: str, **asked: str) -> list[str]:
    explain_port(session, name, asked.get("source"), asked.get("target"), asked.get("output", "text"))
    return capsys.readouterr().out.splitlines()


def test_it_names_the_rule_that_decides(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, session, "web-0", source="10.0.0.7:443/tcp") == [
        "Denied: ingress of port default/web-0 from 10.0.0.7:443/tcp",
        "because ingress[0] (no-labs) of policy default/web (priority 20) says Deny",
        "policies in the order in which they are asked: default/audit (priority 5), default/web (priority 20)",
    ]
    assert said(capsys, session, "web-0", source="10.1.0.2:443")[:2] == [
        "Allowed: ingress of port default/web-0 from 10.1.0.2:443",
        "because ingress[1] of policy default/web (priority 20) says Allow",
    ]


def test_it_says_when_no_rule_or_no_policy_decides(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, session, "db-0", source="[fd00::1]:53/udp") == [
        "Denied: ingress of port default/db-0 from [fd00::1]:53/udp",
        "because no rule allows it, and its VM is selected for ingress by default/audit",
    ]
    assert said(capsys, session, "web-0", target="10.0.0.7/icmp") == [
        "Allowed: egress of port default/web-0 to 10.0.0.7/icmp",
        "because no policy selects its VM for egress: everything passes",
    ]


def test_it_prints_json(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads("\n".join(said(capsys, session, "web-0", source="10.0.0.7:443/tcp", output="json")))
    assert found == {
        "action": "Deny",
        "reason": "Rule",
        "policies": ["default/audit", "default/web"],
        "policy": "default/web",
        "rule": "ingress[0]",
        "name": "no-labs",
    }


def on_a_smart_nic(**served: list[dict[str, Any]]) -> Session:
    there = port("web-0", "web", "10.1.0.1")
    there["metadata"]["labels"] = {"app": "web"}
    there["status"] |= {"dataPlane": "SmartNIC", "smartNIC": "dpu0"}
    web = {"vmSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 443}]}]}
    api = Api(ports=[there], namespaces=[obj("default", None)], firewallpolicies=[obj("web", spec=web)], **served)
    return Session(api, "default")  # type: ignore[arg-type]


@pytest.mark.parametrize("served", [{}, {"virtualmachines": []}])
def test_on_a_smart_nic_ports_have_labels_of_their_own(
    capsys: pytest.CaptureFixture[str], served: dict[str, list[dict[str, Any]]]
) -> None:
    assert said(capsys, on_a_smart_nic(**served), "web-0", source="10.0.0.7:443/tcp") == [
        "Allowed: ingress of port default/web-0 from 10.0.0.7:443/tcp",
        "because ingress[0] of policy default/web (priority 1000) says Allow",
    ]
    assert said(capsys, on_a_smart_nic(**served), "web-0", source="10.0.0.7:80/tcp")[0].startswith("Denied")


def test_on_a_smart_nic_peers_elsewhere_are_known_by_their_remote_ports(capsys: pytest.CaptureFixture[str]) -> None:
    web, db = port("web-0", "web", "10.1.0.1"), port("db-0", "db", "")
    web["status"] |= {"dataPlane": "SmartNIC", "smartNIC": "dpu0"}
    db["metadata"]["labels"], db["status"] = {"app": "db"}, {}
    db["spec"] |= {"remote": True, "addresses": ["10.1.0.2"]}
    policy = obj("web", spec={"ingress": [{"peers": [{"vmSelector": {"matchLabels": {"app": "db"}}}]}]})
    api = Api(ports=[web, db], namespaces=[obj("default", None)], firewallpolicies=[policy])
    nic = Session(api, "default")  # type: ignore[arg-type]
    assert said(capsys, nic, "web-0", source="10.1.0.2:443/tcp")[0].startswith("Allowed")
    assert said(capsys, nic, "web-0", source="10.1.0.3:443/tcp")[0].startswith("Denied")
    last = said(capsys, nic, "db-0", source="10.1.0.2:443/tcp")[-1]
    assert last == "this port is remote: it is switched elsewhere, and only a peer of what is in force here"


def test_on_a_host_peers_on_its_smart_nic_are_known(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    db = session.client.get(session.client.kind("ports"), "default", "db-0")
    db["status"] |= {"dataPlane": "SmartNIC", "smartNIC": "dpu0", "function": "pf0vf0"}
    assert said(capsys, session, "web-0", source="10.1.0.2:443")[0].startswith("Allowed")


def test_a_host_says_that_its_smart_nic_decides(capsys: pytest.CaptureFixture[str]) -> None:
    host = on_a_smart_nic(virtualmachines=[obj("web", labels={"app": "web"})])
    last = said(capsys, host, "web-0", source="10.0.0.7:443/tcp")[-1]
    assert last.startswith("SmartNIC dpu0 switches this port by its own policies")


def test_what_it_does_not_understand(session: Session) -> None:
    with pytest.raises(NotFound):
        explain_port(session, "nobody", "10.0.0.7:443/tcp", None, "text")
    for source, target in ((None, None), ("10.0.0.7:1/tcp", "10.0.0.7:1/tcp")):
        with pytest.raises(click.UsageError):
            explain_port(session, "web-0", source, target, "text")
    for text in ("", "web:443", "10.0.0.7", "10.0.0.7:0/tcp", "10.0.0.7:65536", "10.0.0.7:1/icmp", "fd00::1:80", "1/x"):
        with pytest.raises(click.UsageError):
            parse_other_side(text)
