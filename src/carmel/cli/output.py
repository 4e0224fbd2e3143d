"""``-o``: the forms in which objects are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from carmel.cli.text import cell, columns
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, Table, dig, metadata

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FORMS = ("table", "wide", "yaml", "json", "name")


@dataclass(frozen=True, slots=True)
class Output:
    """A form; ``path`` is the expression of ``jsonpath=EXPRESSION``."""

    form: str = "table"
    path: str = ""

    @property
    def is_table(self) -> bool:
        return self.form in {"table", "wide"}


class OutputType(click.ParamType[Output]):
    """Reads ``-o``."""

    name = "output"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Output:
        if isinstance(value, Output):
            return value
        form, equals, path = str(value).partition("=")
        if form == "jsonpath" and path:
            return Output(form, path)
        if form in FORMS and not equals:
            return Output(form)
        return self.fail(f"{value!r} is not one of {', '.join(FORMS)}, jsonpath=EXPRESSION", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem  # only needed for TAB

        return [CompletionItem(form) for form in (*FORMS, "jsonpath=") if form.startswith(incomplete)]


def output_option(default: Output | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``-o``. Without a default, a command says in a sentence what it did."""
    return click.option(
        "-o",
        "--output",
        type=OutputType(),
        default=default,
        metavar="FORM",
        help="table, wide, yaml, json, name or jsonpath=EXPRESSION.",
    )


def print_object(obj: JsonObject, output: Output) -> None:
    """Print one object, or a List, in a form that is not a table."""
    if output.form == "json":
        click.echo(json.dumps(without_managed_fields(obj), indent=2, ensure_ascii=False))
    elif output.form == "yaml":
        from carmel.cli.manifests import to_yaml  # YAML takes 10 ms to import

        click.echo(to_yaml(without_managed_fields(obj)), nl=False)
    elif output.form == "name":
        for one in obj.get("items", [obj]):
            click.echo(object_name(one))
    elif output.form == "jsonpath":
        from carmel.cli.jsonpath import render  # rarely used

        click.echo(render(output.path, obj))


def object_name(obj: JsonObject) -> str:
    """``virtualmachine.carmel.dev/web``, as kubectl prints it."""
    group = str(obj.get("apiVersion") or "").rpartition("/")[0]
    kind = str(obj.get("kind") or "").lower()
    return f"{kind}.{group}/{metadata(obj, 'name')}" if group else f"{kind}/{metadata(obj, 'name')}"


def told(kind: ResourceType, name: str) -> str:
    """``virtualmachine.carmel.dev/web`` in sentences of what was done."""
    return f"{kind.title}/{name}"


def without_managed_fields(obj: JsonObject) -> JsonObject:
    """The object without the bookkeeping of server-side apply, which is longer than the object."""
    if "items" in obj:
        return {**obj, "items": [without_managed_fields(one) for one in obj["items"]]}
    if not dig(obj, "metadata", "managedFields"):
        return obj
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


class TablePrinter:
    """Prints tables of one kind, one after the other (a watch), with the same columns under each other."""

    def __init__(self, output: Output, *, headers: bool = True, namespaces: bool = False, prefix: str = "") -> None:
        self._wide = output.form == "wide"
        self._headers = headers
        self._namespaces = namespaces
        self._prefix = prefix
        self._widths: list[int] = []
        self._shown: list[int] = []

    def print(self, table: Table) -> None:
        rows: list[Sequence[str]] = []
        if table.columns and not self._widths:
            self._shown = [index for index, column in enumerate(table.columns) if self._wide or column.priority == 0]
            header = [table.columns[index].name.upper() for index in self._shown]
            rows += [["NAMESPACE", *header] if self._namespaces else header] if self._headers else []
        for row in table.rows:
            cells = [cell(row.cells[index]) if index < len(row.cells) else "<none>" for index in self._shown]
            if self._prefix and cells:
                cells[0] = f"{self._prefix}/{cells[0]}"
            rows.append([cell(row.namespace), *cells] if self._namespaces else cells)
        for line in columns(rows, self._widths):
            click.echo(line)
