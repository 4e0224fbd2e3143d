"""``carmel smartnic sync``: what the host's API wants of a NIC, shown, and written with the NIC's own credentials."""

from __future__ import annotations

import dataclasses
import json
import sys
from urllib.parse import urlsplit

import click

from carmel.cli.output import Output, print_object
from carmel.cli.session import Session
from carmel.cli.text import safe
from carmel.client.api import Client, Selection
from carmel.client.contexts import choose_context
from carmel.client.endpoint import Context, Endpoint, HttpsEndpoint
from carmel.client.objects import JsonObject, condition, dig, metadata
from carmel.errors import NotFound, Refused
from carmel.smartnic.credentials import split_address
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS, SMART_NICS
from carmel.smartnic.mirror import KINDS, Change, Difference, HostObjects, Verb, compare, wanted_on
from carmel.smartnic.peers import addresses_of, is_remote
from carmel.smartnic.schemas import read_schemas
from carmel.smartnic.syncing import make

_DONE = {Verb.CREATE: "created", Verb.UPDATE: "changed", Verb.DELETE: "deleted"}


def sync_nic(
    session: Session, name: str, nic_context: str | None, output: Output | None, *, dry_run: bool, yes: bool
) -> None:
    """Raises what either server answers; what was written before that stays written."""
    smart_nic = session.client.get(SMART_NICS, None, name)
    host = dig(smart_nic, "status", "host", "name")
    if not host:
        raise Refused(
            f"SmartNIC {name} was not looked at by its host's daemon yet",
            code="NotReady",
            hint="is carmeld running there?",
        )
    wanted = wanted_on(name, str(host), read_host(session.client))
    with Client(administrator_context(session, smart_nic, nic_context)) as nic:
        there = {kind: nic.list(kind, Selection(None)).get("items") or [] for kind in KINDS}
        other_version = condition(smart_nic, "VersionSkew").get("status") == "True"
        difference = compare(wanted, there, str(host), read_schemas(nic) if other_version else {})
        show(name, difference, output)
        if dry_run or not difference.changes:
            return
        _confirm(name, len(difference.changes), yes=yes)
        quiet = output is not None
        make(
            nic, difference, None if quiet else lambda change: click.echo(f"{safe(change.called)} {_DONE[change.verb]}")
        )


def read_host(client: Client) -> HostObjects:
    """All that can concern a NIC."""
    return HostObjects(
        networks=client.list(NETWORKS, Selection(None)).get("items") or [],
        ports=client.list(PORTS, Selection(None)).get("items") or [],
        policies=client.list(POLICIES, Selection(None)).get("items") or [],
        namespaces=client.list(NAMESPACES, Selection(None)).get("items") or [],
        smart_nics=client.list(SMART_NICS, Selection(None)).get("items") or [],
    )


# -- the way to the NIC -----------------------------------------------------------------------------------------------
def administrator_context(session: Session, smart_nic: JsonObject, wanted: str | None) -> Context:
    """A context with credentials of the NIC's administrator, through the relay of its host. One that leads elsewhere
    than to the NIC's end of the internal link is a way to the NIC already (a forwarded port), and is taken as it is.

    Raises ``Refused`` (``NoRelay``, ``NotANIC``), ``NotFound`` (``ContextNotFound``).
    """
    name = metadata(smart_nic, "name")
    try:
        context = choose_context(wanted or name)
    except NotFound as exc:
        exc.hint = (
            f"on the NIC `carmel kubeconfig` prints one: save it as context {name} in ~/.config/carmel/config, or name "
            "another with --nic-context"
        )
        raise
    if not isinstance(context.endpoint, HttpsEndpoint):
        raise Refused(f"context {context.name} is this machine's own daemon, not the NIC", code="NotANIC")
    address = dig(smart_nic, "spec", "address")
    if address and (context.endpoint.host, context.endpoint.port) != split_address(address):
        return context
    relay = dig(smart_nic, "status", "relay")
    if not isinstance(relay, str):
        raise Refused(
            f"SmartNIC {name} has no relay on its host",
            code="NoRelay",
            hint=f"carmel get smartnic {name} -o yaml says why (condition RelayReady)",
        )
    return Context(context.name, through_relay(session.client.context.endpoint, relay, context.endpoint))


def through_relay(host: Endpoint, relay: str, nic: HttpsEndpoint) -> HttpsEndpoint:
    """The NIC by way of its host. TLS is the NIC's as before: its certificate is checked against the name that the
    context knows it by."""
    url = urlsplit(relay)
    address, port = url.hostname or "127.0.0.1", url.port or 443
    if isinstance(host, HttpsEndpoint) and address in {"127.0.0.1", "::1"}:
        # The relay names itself as its host sees it; we see the host from elsewhere.
        address = host.host
    return dataclasses.replace(nic, host=address, port=port, base_path="", server_name=nic.server_name or nic.host)


# -- for people -------------------------------------------------------------------------------------------------------
def show(name: str, difference: Difference, output: Output | None) -> None:
    if output is not None:
        print_object(_document(name, difference), output)
        return
    for change in difference.changes:
        click.echo(line_of(change))
    for note in difference.notes:
        click.echo(f"note: {safe(note)}", err=True)
    for unknown in difference.left_out:
        click.echo(f"note: the NIC's version does not know of {safe(unknown)}", err=True)
    if not difference.changes and difference.left_out:
        click.echo(f"SmartNIC {name} has all that its version knows of")
        return
    if not difference.changes:
        click.echo(f"SmartNIC {name} has all that it should have")


def line_of(change: Change) -> str:
    """``update Port default/web-eth0: spec.vlan = 20``. Of a new remote Port its addresses, for they are believed."""
    line = f"{change.verb.value} {safe(change.called)}"
    if change.verb is Verb.CREATE and is_remote(change.body):
        return f"{line}: remote, {', '.join(safe(one) for one in addresses_of(change.body))}"
    if change.verb is not Verb.UPDATE:
        return line
    return f"{line}: {', '.join(safe(_assignment(change.body, field)) for field in change.fields)}"


def _assignment(body: JsonObject, field: str) -> str:
    value = _value(body, field)
    if value is None:
        return f"{field} removed"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return f"{field} = {text if len(text) <= 60 else text[:57] + '...'}"


def _value(body: JsonObject, field: str) -> object:
    """What a patch sets a field to. The name of a label has dots of its own."""
    first, _, rest = field.partition(".")
    if field in body:
        return body[field]
    inner = body.get(first)
    return _value(inner, rest) if isinstance(inner, dict) else None


def _document(name: str, difference: Difference) -> JsonObject:
    return {
        "smartNIC": name,
        "changes": [
            {
                "verb": change.verb.value,
                "kind": change.kind.kind,
                **({"namespace": change.namespace} if change.namespace else {}),
                "name": change.name,
                **({"body": change.body} if change.body else {}),
            }
            for change in difference.changes
        ],
        "notes": list(difference.notes),
        "leftOut": list(difference.left_out),
    }


def _confirm(name: str, count: int, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            f"nothing was changed on SmartNIC {name}: there is no terminal to ask on",
            code="ConfirmationNeeded",
            hint="--yes makes the changes, --dry-run only shows them",
        )
    what = "this change" if count == 1 else f"these {count} changes"
    if not click.confirm(f"Make {what} on SmartNIC {name}?", err=True):
        raise Refused("nothing was changed", code="NotConfirmed")
