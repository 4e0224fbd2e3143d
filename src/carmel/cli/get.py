"""``carmel get``: tables as the server makes them, or objects."""

from __future__ import annotations

from collections.abc import Sequence

import click

from carmel.cli.complete import complete_words
from carmel.cli.output import Output, TablePrinter, output_option, print_object
from carmel.cli.session import Session, with_session
from carmel.cli.words import Target, targets
from carmel.client.api import Selection, by_name
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, Table, metadata, table_from_json
from carmel.errors import CarmelError, Expired


@click.command()
@click.argument("words", metavar="KIND [NAME]...", nargs=-1, required=True, shell_complete=complete_words)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option(
    "-l", "--selector", "labels", default="", metavar="LABELS", help="Only with these labels: app=web,tier!=db."
)
@click.option(
    "--field-selector", "fields", default="", metavar="FIELDS", help="Only with these fields: metadata.name=web."
)
@click.option("-w", "--watch", is_flag=True, help="Go on and show every change.")
@click.option("--no-headers", is_flag=True, help="Leave the line of headers out.")
@output_option(Output())
@with_session
def get(
    session: Session,
    *,
    words: tuple[str, ...],
    everywhere: bool,
    labels: str,
    fields: str,
    watch: bool,
    no_headers: bool,
    output: Output,
) -> None:
    """List resources, or show some by name.

    \b
    carmel get vm                      all VMs of the namespace
    carmel get vm web -o yaml          one, as YAML
    carmel get vm,image -A             VMs and images of all namespaces
    carmel get vm -w                   and then every change
    """
    wanted = targets(session, words)
    view = _View(session, output, headers=not no_headers, everywhere=everywhere, labels=labels, fields=fields)
    if (labels or fields) and any(one.name for one in wanted):
        raise click.UsageError("a name and a selector do not go together")
    if watch:
        if len(wanted) != 1:
            raise click.UsageError("--watch takes one kind, or one object")
        view.watch(wanted[0])
    elif output.is_table:
        view.tables(wanted)
    else:
        view.objects(wanted)


class _View:
    def __init__(
        self, session: Session, output: Output, *, headers: bool, everywhere: bool, labels: str, fields: str
    ) -> None:
        self._session = session
        self._client = session.client
        self._output = output
        self._headers = headers
        self._everywhere = everywhere
        self._labels = labels
        self._fields = fields

    # -- tables -------------------------------------------------------------------------------------------------
    def tables(self, wanted: Sequence[Target]) -> None:
        """One table a kind. What is not there is told after what is."""
        kinds = list(dict.fromkeys(one.kind for one in wanted))
        missing: list[CarmelError] = []
        shown = 0
        for kind in kinds:
            names = [one.name for one in wanted if one.kind == kind and one.name]
            table = self._named(kind, names, missing) if names else self._table(kind)
            if table.rows:
                if shown:
                    click.echo()
                self._printer(kind, several=len(kinds) > 1).print(table)
            shown += len(table.rows)
        if missing:
            raise missing[0]
        if not shown:
            self._nothing(kinds)

    def _table(self, kind: ResourceType) -> Table:
        return self._client.table(kind, self._select(kind))

    def _named(self, kind: ResourceType, names: Sequence[str], missing: list[CarmelError]) -> Table:
        table = Table((), ())
        for name in names:
            try:
                found = self._client.table(kind, self._session.select(kind), name)
            except CarmelError as exc:
                missing.append(exc)
                continue
            table = Table(found.columns, (*table.rows, *found.rows), found.resource_version)
        return table

    def _printer(self, kind: ResourceType, *, several: bool = False) -> TablePrinter:
        return TablePrinter(
            self._output,
            headers=self._headers,
            namespaces=self._everywhere and kind.namespaced,
            prefix=kind.title if several else "",
        )

    def _nothing(self, kinds: Sequence[ResourceType]) -> None:
        what = ", ".join(kind.plural for kind in kinds)
        inside = any(kind.namespaced for kind in kinds) and not self._everywhere
        click.echo(f"No {what}" + (f" in namespace {self._session.namespace}." if inside else "."), err=True)

    # -- objects ------------------------------------------------------------------------------------------------
    def objects(self, wanted: Sequence[Target]) -> None:
        if len(wanted) == 1 and wanted[0].name:
            kind = wanted[0].kind
            print_object(self._client.get(kind, wanted[0].namespace, wanted[0].name), self._output)
            return
        found: list[JsonObject] = []
        version = ""
        for one in wanted:
            if one.name:
                found.append(self._client.get(one.kind, one.namespace, one.name))
            else:
                listed = self._client.list(one.kind, self._select(one.kind))
                version = metadata(listed, "resourceVersion")
                found += listed.get("items") or []
        whole = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version}, "items": found}
        print_object(whole, self._output)

    # -- watch --------------------------------------------------------------------------------------------------
    def watch(self, wanted: Target) -> None:
        printer = self._printer(wanted.kind)
        if wanted.name:
            self._client.get(wanted.kind, wanted.namespace, wanted.name)
        while True:
            try:
                self._watch_once(wanted, printer)
            except Expired:
                continue

    def _watch_once(self, wanted: Target, printer: TablePrinter) -> None:
        kind = wanted.kind
        selection = by_name(wanted.namespace, wanted.name) if wanted.name else self._select(kind)
        if self._output.is_table:
            table = self._client.table(kind, selection)
            printer.print(table)
            version = table.resource_version
        else:
            listed = self._client.list(kind, selection)
            for one in listed.get("items") or []:
                self._print_flushed(one)
            version = metadata(listed, "resourceVersion")
        for event in self._client.watch(kind, selection, version, table=self._output.is_table):
            if self._output.is_table:
                printer.print(table_from_json(event.object))
            else:
                self._print_flushed(event.object)

    def _print_flushed(self, obj: JsonObject) -> None:
        if self._output.form == "yaml":
            click.echo("---")
        print_object(obj, self._output)

    def _select(self, kind: ResourceType) -> Selection:
        return self._session.select(kind, labels=self._labels, fields=self._fields, everywhere=self._everywhere)
