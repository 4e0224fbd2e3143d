"""``carmel explain port NAME --from ADDRESS:PORT/PROTOCOL``: which rule of the firewall decides.

It asks the rules that the host's firewall is made of, by the same compiler, of the policies, ports, VMs and namespaces
that the API has now.
"""

from __future__ import annotations

import ipaddress
import json
import re

import click

from carmel.cli.session import Session
from carmel.cli.text import safe
from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig
from carmel.errors import NotFound
from carmel.network.firewall import (
    Connection,
    Decision,
    PolicyRef,
    PortBinding,
    PortKey,
    Ruleset,
    Why,
    assemble,
    compile_all,
    decide,
)
from carmel.network.firewall.bindings import binding_of
from carmel.resources.firewallpolicy import Action, Direction, FirewallPolicySpec
from carmel.resources.port import DataPlane, Port

_OTHER_SIDE = re.compile(
    r"(?:\[(?P<six>[^\]]+)\]|(?P<plain>[^/\[\]:]+))(?::(?P<port>\d{1,5}))?(?:/(?P<protocol>[a-z]+))?"
)
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def parse_other_side(text: str) -> Connection:
    """``10.0.0.7:443/tcp``, ``[fd00::7]:53/udp``, ``10.0.0.7/icmp``. Raises a usage error."""
    match = _OTHER_SIDE.fullmatch(text.lower())
    hint = f"{text!r}: write ADDRESS:PORT/PROTOCOL, for example 10.0.0.7:443/tcp, [fd00::7]:53/udp or 10.0.0.7/icmp"
    if match is None:
        raise click.UsageError(hint)
    try:
        address = ipaddress.ip_address(match["six"] or match["plain"])
    except ValueError:
        raise click.UsageError(hint) from None
    protocol = match["protocol"] or "tcp"
    if protocol == "icmp" and match["port"] is None:
        return Connection(address, 1 if address.version == 4 else 58)
    port = int(match["port"] or 0)
    if protocol not in _NUMBERS or not 1 <= port <= 65535:
        raise click.UsageError(hint)
    return Connection(address, _NUMBERS[protocol], port)


def explain_port(session: Session, name: str, source: str | None, target: str | None, output: str) -> None:
    """Print the decision. ``source`` is for what comes to the port, ``target`` for what goes out from it."""
    text = source or target
    if text is None or (source and target):
        raise click.UsageError("say where the connection comes from (--from), or where it goes to (--to)")
    connection = parse_other_side(text)
    direction = Direction.INGRESS if source else Direction.EGRESS
    key = PortKey(session.namespace, name)
    # Asked for first: it says best that there is no such port.
    asked_for = session.client.get(session.client.kind("ports"), session.namespace, name)
    policies, ruleset = _current(session)
    smart_nic = ruleset.ports[key].port.smart_nic if key in ruleset.ports else None
    decision = decide(ruleset, key, direction, connection)
    if output == "json":
        click.echo(_json(decision))
        return
    way = f"{'from' if source else 'to'} {text}"
    click.echo(f"{_verdict(decision)}: {direction.value.lower()} of port {safe(key)} {way}")
    click.echo(f"because {_reason(decision, direction, policies)}")
    if len(decision.policies) > 1:
        asked = ", ".join(f"{safe(one)} (priority {policies[one].priority})" for one in decision.policies)
        click.echo(f"policies in the order in which they are asked: {asked}")
    if dig(asked_for, "spec", "remote"):
        click.echo("this port is remote: it is switched elsewhere, and only a peer of what is in force here")
    if smart_nic is not None:
        which = f"SmartNIC {safe(smart_nic)}" if smart_nic else "a SmartNIC"
        click.echo(f"{which} switches this port by its own policies: ask its API (carmel --context) what is in force")


def _current(session: Session) -> tuple[dict[PolicyRef, FirewallPolicySpec], Ruleset]:
    labels = {_ref(one): one["metadata"].get("labels") or {} for one in _vms(session)}
    ports = [_binding(one, labels) for one in _all(session, "ports")]
    namespaces = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in _all(session, "namespaces")}
    policies = {
        _ref(one): FirewallPolicySpec.model_validate(one.get("spec") or {}) for one in _all(session, "firewallpolicies")
    }
    return policies, assemble(compile_all(policies), ports, namespaces)


def _all(session: Session, word: str) -> list[JsonObject]:
    return list(session.client.list(session.client.kind(word), Selection(None))["items"])


def _vms(session: Session) -> list[JsonObject]:
    """None on a SmartNIC, which need not even have the kind."""
    try:
        return _all(session, "virtualmachines")
    except NotFound:
        return []


def _ref(obj: JsonObject) -> PolicyRef:
    return PolicyRef(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _binding(obj: JsonObject, labels: dict[PolicyRef, dict[str, str]]) -> PortBinding:
    """With its VM's labels, and where there is no such VM (on a SmartNIC there are none) with its own."""
    port = Port.model_validate(obj)
    of_vm = labels.get(PolicyRef(port.metadata.namespace or "", port.spec.vm_ref.name))
    if of_vm is not None:
        return binding_of(port, of_vm)
    return binding_of(port, port.metadata.labels or {}, port.status.data_plane or DataPlane.HOST)


def _verdict(decision: Decision) -> str:
    return "Allowed" if decision.action is Action.ALLOW else "Denied"


def _reason(decision: Decision, direction: Direction, policies: dict[PolicyRef, FirewallPolicySpec]) -> str:
    word = direction.value.lower()
    if decision.why is Why.OPEN:
        return f"no policy selects its VM for {word}: everything passes"
    if decision.why is Why.ISOLATED:
        asked = ", ".join(safe(one) for one in decision.policies)
        return f"no rule allows it, and its VM is selected for {word} by {asked}"
    rule = decision.rule
    assert rule is not None
    if decision.why is Why.REFUSED:
        return f"policy {safe(rule.policy)} could not be loaded, and its VMs get nothing through until it can"
    named = f" ({safe(rule.name)})" if rule.name else ""
    priority = policies[rule.policy].priority
    return f"{rule.place}{named} of policy {safe(rule.policy)} (priority {priority}) says {decision.action.value}"


def _json(decision: Decision) -> str:
    rule = decision.rule
    found = {
        "action": decision.action.value,
        "reason": decision.why.value,
        "policies": [str(one) for one in decision.policies],
        **({} if rule is None else {"policy": str(rule.policy), "rule": rule.place, "name": rule.name}),
    }
    return json.dumps(found, indent=2)
