"""``carmel logs``: what a VM printed on its serial console."""

from __future__ import annotations

import sys

import click

from carmel.cli.complete import complete_vms
from carmel.cli.power import VM_KIND
from carmel.cli.session import Session, with_session
from carmel.client.transport import REQUEST_SECONDS


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vms)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@with_session
def logs(session: Session, *, name: str, follow: bool, tail: int | None) -> None:
    """Show what a VM printed on its serial console, also while nobody was attached.

    \b
    carmel logs web --tail 20 -f
    """
    query = {}
    if tail is not None:
        query["tailLines"] = str(tail)
    if follow:
        query["follow"] = "true"
    path = session.client.discovery.find_kind(*VM_KIND).path(session.namespace, name, "log")
    seconds = None if follow else REQUEST_SECONDS
    with session.client.open("GET", path, query=query, headers={"Accept": "*/*"}, seconds=seconds) as stream:
        while chunk := stream.chunk():
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
