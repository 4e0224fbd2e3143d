"""``carmel delete``: says what goes and what stays, and asks."""

from __future__ import annotations

import contextlib
import sys

import click

from carmel.cli.complete import complete_words
from carmel.cli.keys import known_hosts_directory
from carmel.cli.manifests import read_manifests
from carmel.cli.output import told
from carmel.cli.session import Session, with_session
from carmel.cli.text import safe
from carmel.cli.waiting import Goal, timeout_option, wait_for
from carmel.cli.words import Target, targets
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound, Refused


@click.command()
@click.argument("words", metavar="KIND NAME...", nargs=-1, shell_complete=complete_words)
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="What these manifests name.")
@click.option("-l", "--selector", "labels", default="", metavar="LABELS", help="All with these labels.")
@click.option("--all", "everything", is_flag=True, help="All of the kind in the namespace.")
@click.option("--force", "--yes", "-y", "force", is_flag=True, help="Do not ask.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there counts as deleted.")
@click.option("--wait/--no-wait", "wait", default=True, help="Wait until it is gone (the default), or only ask for it.")
@timeout_option("5m")
@with_session
def delete(
    session: Session,
    *,
    words: tuple[str, ...],
    files: tuple[str, ...],
    labels: str,
    everything: bool,
    force: bool,
    ignore_not_found: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Delete resources, after saying what goes with them and asking.

    \b
    carmel delete vm web               says which disks go and which stay, and asks
    carmel delete vm web --force       for scripts: does not ask
    carmel delete -f vm.yaml
    """
    if bool(words) == bool(files):
        raise click.UsageError("say what: KIND NAME..., or -f FILE")
    found = _from_files(session, files) if files else targets(session, words)
    doomed = _doomed(session, found, labels=labels, everything=everything, ignore_not_found=ignore_not_found)
    if not doomed:
        click.echo("There is nothing to delete.", err=True)
        return
    confirm(doomed, force=force)
    for kind, obj in doomed:
        delete_one(session, kind, obj, seconds=timeout if wait else None, ignore_not_found=ignore_not_found)


def confirm(doomed: list[tuple[ResourceType, JsonObject]], *, force: bool) -> None:
    """Say what goes and ask for it. Raises ``Refused`` where nobody can be asked."""
    for kind, obj in doomed:
        for line in consequences(kind, obj):
            click.echo(line, err=True)
    if force:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            "nothing was deleted: there is no terminal to ask on",
            code="ConfirmationNeeded",
            hint="--force deletes without asking",
        )
    what = told(doomed[0][0], metadata(doomed[0][1], "name")) if len(doomed) == 1 else f"these {len(doomed)} resources"
    if not click.confirm(f"Delete {what}?", err=True):
        raise Refused("nothing was deleted", code="NotConfirmed")


def consequences(kind: ResourceType, obj: JsonObject) -> list[str]:
    """What goes with an object and what stays, a line each."""
    name = safe(metadata(obj, "name"))
    if kind.kind == "VirtualMachine":
        return [f"virtual machine {name}", *_disk_lines(obj)]
    if kind.kind == "Volume":
        used_by = dig(obj, "status", "usedBy")
        return [f"volume {name}: its data goes" + (f" (used by {safe(used_by)}: it waits for that)" if used_by else "")]
    if kind.kind == "Namespace":
        return [f"namespace {name}: all that is in it goes too"]
    return [f"{kind.singular} {name}"]


def _disk_lines(vm: JsonObject) -> list[str]:
    volumes = {one.get("name"): one.get("volumeName") for one in dig(vm, "status", "disks") or []}
    lines = []
    for disk in dig(vm, "spec", "disks") or []:
        existing = dig(disk, "volumeRef", "name")
        policy = disk.get("deletePolicy") or ("Retain" if existing else "Delete")
        volume = existing or volumes.get(disk.get("name"))
        where = f" (volume {safe(volume)})" if volume else ""
        lines.append(f"  disk {safe(disk.get('name'))}{where}: {'goes' if policy == 'Delete' else 'stays'}")
    return lines


def delete_one(
    session: Session, kind: ResourceType, obj: JsonObject, *, seconds: float | None, ignore_not_found: bool = False
) -> None:
    """Delete this very object (not a namesake made meanwhile) and wait ``seconds`` until it is gone."""
    namespace, name = metadata(obj, "namespace") or None, metadata(obj, "name")
    try:
        session.client.delete(kind, namespace, name, uid=metadata(obj, "uid") or None)
    except NotFound:
        if not ignore_not_found:
            raise
    if kind.kind == "VirtualMachine":
        with contextlib.suppress(OSError):
            (known_hosts_directory() / metadata(obj, "uid")).unlink()
    if seconds is not None:
        uid = metadata(obj, "uid")
        gone = Goal("deleted", lambda now: now is None or metadata(now, "uid") != uid)
        wait_for(session.client, kind, namespace, name, gone, seconds=seconds)
    click.echo(f"{told(kind, name)} {'deleted' if seconds is not None else 'is being deleted'}")


def _from_files(session: Session, files: tuple[str, ...]) -> list[Target]:
    found = []
    for one in read_manifests(files):
        kind = session.client.discovery.find_kind(one.object["apiVersion"], one.object["kind"])
        found.append(Target(kind, metadata(one.object, "name"), session.namespace_for(kind, one.object)))
    return found


def _doomed(
    session: Session, found: list[Target], *, labels: str, everything: bool, ignore_not_found: bool
) -> list[tuple[ResourceType, JsonObject]]:
    """All is looked up before anything is deleted: a wrong name among many deletes nothing."""
    doomed = []
    for one in found:
        if one.name:
            try:
                obj = session.client.get(one.kind, one.namespace, one.name)
                doomed.append((one.kind, obj))
            except NotFound:
                if not ignore_not_found:
                    raise
        elif labels or everything:
            listed = session.client.list(one.kind, session.select(one.kind, labels=labels))
            doomed += [(one.kind, obj) for obj in listed.get("items") or []]
        else:
            raise click.UsageError(f"say which {one.kind.singular}: a name, -l LABELS or --all")
    return doomed
