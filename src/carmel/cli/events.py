"""``carmel events``: what happened, oldest first."""

from __future__ import annotations

import click

from carmel.cli.complete import complete_words
from carmel.cli.describe import event_time
from carmel.cli.output import Output, output_option, print_object
from carmel.cli.session import Session, with_session
from carmel.cli.text import age, columns, safe
from carmel.cli.words import one_target
from carmel.client.api import Selection
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import Expired

_HEADER = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")


@click.command()
@click.argument("words", metavar="[KIND NAME]", nargs=-1, shell_complete=complete_words)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show what happens.")
@click.option("--no-headers", is_flag=True, help="Leave the line of headers out.")
@output_option(Output())
@with_session
def events(
    session: Session, *, words: tuple[str, ...], everywhere: bool, watch: bool, no_headers: bool, output: Output
) -> None:
    """Show what happened, to one resource or to all.

    \b
    carmel events
    carmel events vm web -w
    """
    kind = session.client.discovery.find_kind("v1", "Event")
    selection = session.select(kind, everywhere=everywhere)
    if words:
        target = one_target(session, words)
        fields = f"involvedObject.kind={target.kind.kind},involvedObject.name={target.name}"
        # Events of what lives in no namespace lie in "default" (Kubernetes' own rule).
        selection = Selection(target.namespace or "default", fields=fields)
    listed = session.client.list(kind, selection)
    listed["items"] = sorted(listed.get("items") or [], key=event_time)
    if output.is_table:
        widths: list[int] = []
        rows = [_HEADER] if listed["items"] and not no_headers else []
        _print([*rows, *map(_row, listed["items"])], widths)
        if not listed["items"] and not watch:
            click.echo("No events.", err=True)
    else:
        print_object(listed, output)
        widths = []
    if watch:
        _watch(session, kind, selection, metadata(listed, "resourceVersion"), output, widths)


def _watch(
    session: Session, kind: ResourceType, selection: Selection, version: str, output: Output, widths: list[int]
) -> None:
    while True:
        try:
            for event in session.client.watch(kind, selection, version):
                if event.type == "DELETED":
                    continue
                if output.is_table:
                    _print([_row(event.object)], widths)
                else:
                    print_object(event.object, output)
        except Expired:
            version = metadata(session.client.list(kind, selection), "resourceVersion")


def _row(event: JsonObject) -> tuple[str, ...]:
    kind = str(dig(event, "involvedObject", "kind") or "").lower()
    about = f"{kind}/{dig(event, 'involvedObject', 'name')}"
    count = event.get("count") or 1
    message = f"{event.get('message') or ''}" + (f" (x{count})" if count > 1 else "")
    return (
        age(event_time(event)),
        *(safe(text) for text in (event.get("type") or "", event.get("reason") or "", about, message)),
    )


def _print(rows: list[tuple[str, ...]], widths: list[int]) -> None:
    for line in columns(rows, widths):
        click.echo(line)
