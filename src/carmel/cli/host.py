"""``carmel host``."""

from __future__ import annotations

import click

from carmel.cli.apply import print_results
from carmel.cli.output import Output, output_option
from carmel.cli.session import Session, with_session
from carmel.cli.summary import host_facts
from carmel.cli.text import columns, safe
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import condition, metadata
from carmel.errors import NotFound


@click.command()
@click.argument("name", required=False)
@output_option()
@with_session
def host(session: Session, *, name: str | None, output: Output | None) -> None:
    """Show the host: its machine, its hypervisor, what it has left.

    \b
    carmel host
    carmel host -o json
    """
    kind = session.client.discovery.find_kind(CARMEL_API, "Host")
    if name:
        hosts = [session.client.get(kind, None, name)]
    else:
        hosts = session.client.list(kind, session.select(kind)).get("items") or []
    if not hosts:
        raise NotFound("the server has not registered a host yet", hint="`carmel doctor` says what this machine lacks")
    if output is not None:
        print_results(session, [kind] * len(hosts), hosts, output)
        return
    for index, one in enumerate(hosts):
        if index:
            click.echo()
        facts = [("Name", metadata(one, "name")), *host_facts(one)]
        for line in columns([(f"{fact}:", safe(value)) for fact, value in facts if value]):
            click.echo(line)
        ready = condition(one, "Ready")
        if ready.get("status") != "True" and ready.get("message"):
            click.echo(f"\n{safe(ready['message'])}")
