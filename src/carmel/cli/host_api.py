"""Hosts and all their VMs, as the API has them."""

from __future__ import annotations

import click

from carmel.cli.session import Session
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.objects import JsonObject, metadata
from carmel.errors import Forbidden, NotFound


def host_kind(session: Session) -> ResourceType:
    return session.client.discovery.find_kind(CARMEL_API, "Host")


def find_hosts(session: Session, name: str | None) -> list[JsonObject]:
    """The one of that name, or all. Raises ``NotFound`` where there is none."""
    kind = host_kind(session)
    if name is not None:
        return [session.client.get(kind, None, name)]
    hosts: list[JsonObject] = session.client.list(kind, session.select(kind)).get("items") or []
    if not hosts:
        raise NotFound("the server has not registered a host yet", hint="`carmel doctor` says what this machine lacks")
    return hosts


def one_host(session: Session, name: str | None) -> JsonObject:
    """The one of that name, or the only one. Raises ``NotFound``, or a usage error where there are several."""
    hosts = find_hosts(session, name)
    if len(hosts) > 1:
        raise click.UsageError("say which host: " + ", ".join(metadata(one, "name") for one in hosts))
    return hosts[0]


def all_vms(session: Session) -> list[JsonObject]:
    """Of all namespaces; of one's own where no more is allowed."""
    kind = session.client.discovery.find_kind(CARMEL_API, "VirtualMachine")
    try:
        listed = session.client.list(kind, session.select(kind, everywhere=True))
    except Forbidden:
        listed = session.client.list(kind, session.select(kind))
    found: list[JsonObject] = listed.get("items") or []
    return found
