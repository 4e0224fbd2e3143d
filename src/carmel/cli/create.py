"""``carmel create``: new objects from manifests."""

from __future__ import annotations

import click

from carmel.cli.apply import finish
from carmel.cli.manifests import read_manifests
from carmel.cli.output import Output, output_option, told
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, timeout_option, wait_option
from carmel.client.objects import metadata


@click.command()
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="A file, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Directories with all that is below them.")
@click.option("--dry-run", is_flag=True, help="Have the server check it all and create nothing.")
@wait_option
@timeout_option("5m")
@output_option()
@with_session
def create(
    session: Session,
    *,
    files: tuple[str, ...],
    recursive: bool,
    dry_run: bool,
    goal: Goal | None,
    timeout: float,
    output: Output | None,
) -> None:
    """Create resources from manifests. A name that is taken is an error (exit status 4).

    \b
    carmel create -f vm.yaml --wait=running
    """
    planned = [
        (session.client.discovery.find_kind(one.object["apiVersion"], one.object["kind"]), one.object)
        for one in read_manifests(files, recursive=recursive)
    ]
    created = []
    for kind, obj in planned:
        after = session.client.create(kind, session.namespace_for(kind, obj), obj, dry_run=dry_run)
        created.append((kind, after))
        if output is None:
            click.echo(f"{told(kind, metadata(after, 'name'))} created{' (dry run)' if dry_run else ''}")
    finish(session, created, None if dry_run else goal, timeout, output)
