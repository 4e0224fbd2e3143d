"""``carmel apply``: server-side apply of manifests, the same ones that kubectl takes."""

from __future__ import annotations

import click

from carmel.cli.manifests import Manifest, read_manifests
from carmel.cli.output import Output, output_option, print_object, told
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, timeout_option, wait_for, wait_option
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, metadata
from carmel.errors import Conflict, NotFound, Refused


@click.command()
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="A file, directory or -.")
@click.option("-R", "--recursive", is_flag=True, help="Directories with all that is below them.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that another manager has set.")
@click.option("--dry-run", is_flag=True, help="Have the server check it all and change nothing.")
@wait_option
@timeout_option("5m")
@output_option()
@with_session
def apply(
    session: Session,
    *,
    files: tuple[str, ...],
    recursive: bool,
    force_conflicts: bool,
    dry_run: bool,
    goal: Goal | None,
    timeout: float,
    output: Output | None,
) -> None:
    """Bring resources to what manifests say. Fields you do not name are left alone.

    \b
    carmel apply -f vm.yaml
    carmel apply -f lab/ --wait=ready
    cat vm.yaml | carmel apply -f -
    """
    planned = plan(session, read_manifests(files, recursive=recursive))
    applied = []
    for kind, namespace, obj in planned:
        before = _version(session, kind, namespace, obj)
        try:
            after, created = session.client.apply(kind, namespace, obj, force=force_conflicts, dry_run=dry_run)
        except Conflict as exc:
            if exc.hint is None:
                exc.hint = "--force-conflicts takes the fields over"
            raise
        applied.append((kind, after))
        if output is None:
            changed = before != metadata(after, "resourceVersion")
            did = "created" if created else "configured" if changed else "unchanged"
            click.echo(f"{told(kind, metadata(after, 'name'))} {did}{' (dry run)' if dry_run else ''}")
    finish(session, applied, None if dry_run else goal, timeout, output)


def plan(session: Session, manifests: list[Manifest]) -> list[tuple[ResourceType, str | None, JsonObject]]:
    """Each object with its kind and namespace. All are looked up first, so that a wrong kind changes nothing."""
    planned = []
    for one in manifests:
        kind = session.client.discovery.find_kind(one.object["apiVersion"], one.object["kind"])
        if not metadata(one.object, "name"):
            raise Refused(f"{one.origin}: {kind.kind} has no metadata.name", code="NameRequired", field="metadata.name")
        planned.append((kind, session.namespace_for(kind, one.object), one.object))
    return planned


def finish(
    session: Session,
    done: list[tuple[ResourceType, JsonObject]],
    goal: Goal | None,
    seconds: float,
    output: Output | None,
) -> None:
    """Wait for what was written, and print it if its form was asked for."""
    final = []
    for kind, written in done:
        namespace, name = metadata(written, "namespace") or None, metadata(written, "name")
        waited = wait_for(session.client, kind, namespace, name, goal, seconds=seconds) if goal else None
        final.append(waited or written)
    if output is not None:
        print_results(session, [kind for kind, _ in done], final, output)


def print_results(session: Session, kinds: list[ResourceType], objects: list[JsonObject], output: Output) -> None:
    """Objects in the form of ``-o``; tables come from the server."""
    from carmel.cli.output import TablePrinter  # only for -o table

    if not output.is_table:
        whole = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects}
        print_object(objects[0] if len(objects) == 1 else whole, output)
        return
    for kind, obj in zip(kinds, objects, strict=True):
        selection = session.select(kind)
        TablePrinter(output).print(session.client.table(kind, selection, metadata(obj, "name")))


def _version(session: Session, kind: ResourceType, namespace: str | None, obj: JsonObject) -> str:
    try:
        return metadata(session.client.get(kind, namespace, metadata(obj, "name")), "resourceVersion")
    except NotFound:
        return ""
