"""``carmel explain``: what fields mean, from the server's OpenAPI documents; of a port, what its firewall decides."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import click

from carmel.cli.complete import complete_words
from carmel.cli.session import Session, with_session
from carmel.cli.text import safe
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject
from carmel.errors import NotFound

_WIDTH = 96
_DEEPEST = 12
_REFERENCE = "#/components/schemas/"


@click.command()
@click.argument("path", metavar="KIND[.FIELD]...", shell_complete=complete_words)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--recursive", is_flag=True, help="All fields below, without their descriptions.")
@click.option("--from", "source", metavar="ADDRESS:PORT/PROTOCOL", help="Of a port: who connects, to which port of it.")
@click.option("--to", "target", metavar="ADDRESS:PORT/PROTOCOL", help="Of a port: where it connects to.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="For a port.")
@with_session
def explain(
    session: Session,
    *,
    path: str,
    name: str | None,
    recursive: bool,
    source: str | None,
    target: str | None,
    output: str,
) -> None:
    """Show what the fields of a kind mean, or which firewall rule decides about a connection of a port.

    \b
    carmel explain vm
    carmel explain vm.spec.disks
    carmel explain vm.spec --recursive
    carmel explain port web-0 --from 10.0.0.7:443/tcp
    carmel explain port web-0 --to 10.0.0.7:53/udp
    """
    if name is not None or source is not None or target is not None:
        _about_port(session, path, name, source, target, output)
        return
    word, *fields = path.split(".")
    kind = session.client.kind(word)
    schemas = Schemas(_document(session, kind))
    schema = schemas.of_kind(kind)
    for index, field in enumerate(fields):
        found = schemas.properties(schema).get(field)
        if found is None:
            known = ", ".join(schemas.properties(schema)) or "none"
            at = ".".join([word, *fields[:index]])
            raise NotFound(f"{at} has no field {field!r}", code="FieldNotFound", hint=f"fields: {known}")
        schema = found
    click.echo(f"KIND:     {kind.kind}\nVERSION:  {kind.api_version}\n")
    if fields:
        click.echo(f"FIELD:    {fields[-1]} <{schemas.type_of(schema)}>\n")
    for line in _description(schemas, schema):
        click.echo(line)
    properties = schemas.properties(schema)
    if properties:
        click.echo("\nFIELDS:")
        for line in _tree(schemas, schema, 1) if recursive else _fields(schemas, schema):
            click.echo(line)


def _about_port(
    session: Session, path: str, name: str | None, source: str | None, target: str | None, output: str
) -> None:
    # Only here: all other commands start without the firewall's compiler.
    from carmel.cli.explain_port import explain_port

    if name is None or session.client.kind(path).plural != "ports":
        raise click.UsageError(
            "only what a port lets through is explained by name: `port NAME --from ADDRESS:PORT/tcp`"
        )
    explain_port(session, name, source, target, output)


def _document(session: Session, kind: ResourceType) -> JsonObject:
    key = f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"
    index = session.client.get_json("/openapi/v3")
    url = ((index.get("paths") or {}).get(key) or {}).get("serverRelativeURL")
    if not url:
        raise NotFound(f"the server does not describe {kind.api_version}", code="NoSchema")
    return session.client.get_json(str(url))


class Schemas:
    """The schemas of one document, with references and single-element ``allOf`` looked through."""

    def __init__(self, document: JsonObject) -> None:
        self._schemas: JsonObject = (document.get("components") or {}).get("schemas") or {}

    def of_kind(self, kind: ResourceType) -> JsonObject:
        wanted = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        for schema in self._schemas.values():
            if wanted in (schema.get("x-kubernetes-group-version-kind") or []):
                return dict(schema)
        raise NotFound(f"the server does not describe {kind.kind}", code="NoSchema")

    def resolved(self, schema: JsonObject) -> JsonObject:
        """The schema without references; what stands beside a reference (a description) wins."""
        for _ in range(_DEEPEST):
            reference = schema.get("$ref") or next(
                (one["$ref"] for one in schema.get("allOf") or [] if "$ref" in one), None
            )
            if not isinstance(reference, str):
                break
            beside = {key: value for key, value in schema.items() if key not in {"$ref", "allOf", "default"}}
            schema = {**(self._schemas.get(reference.removeprefix(_REFERENCE)) or {}), **beside}
        return schema

    def item(self, schema: JsonObject) -> JsonObject:
        """What a list or a map holds; the schema itself for all else."""
        found = self.resolved(schema)
        inner = found.get("items") or found.get("additionalProperties")
        return self.resolved(inner) if isinstance(inner, dict) else found

    def properties(self, schema: JsonObject) -> dict[str, JsonObject]:
        return self.item(schema).get("properties") or {}

    def required(self, schema: JsonObject) -> list[str]:
        return self.item(schema).get("required") or []

    def type_of(self, schema: JsonObject) -> str:
        found = self.resolved(schema)
        kind = found.get("type")
        if kind == "array":
            return f"[]{self.type_of(found.get('items') or {})}"
        if isinstance(found.get("additionalProperties"), dict):
            return f"map[string]{self.type_of(found['additionalProperties'])}"
        if kind == "object" or "properties" in found:
            return "Object"
        if found.get("x-kubernetes-int-or-string") or "anyOf" in found:
            return "string or integer"
        return str(kind or "any")

    def choices(self, schema: JsonObject) -> list[Any]:
        return self.item(schema).get("enum") or []


def _description(schemas: Schemas, schema: JsonObject) -> Iterator[str]:
    text = schema.get("description") or schemas.item(schema).get("description") or "<no description>"
    yield "DESCRIPTION:"
    yield from _wrapped(str(text), "    ")
    if choices := schemas.choices(schema):
        yield f"    One of: {', '.join(safe(one) for one in choices)}"


def _fields(schemas: Schemas, schema: JsonObject) -> Iterator[str]:
    required = schemas.required(schema)
    for name, field in schemas.properties(schema).items():
        flag = " -required-" if name in required else ""
        yield f"  {name}  <{schemas.type_of(field)}>{flag}"
        if choices := schemas.choices(field):
            yield f"    one of: {', '.join(safe(one) for one in choices)}"
        default = schemas.resolved(field).get("default", field.get("default"))
        if isinstance(default, str | int) and default != "":
            yield f"    default: {str(default).lower() if isinstance(default, bool) else safe(default)}"
        text = field.get("description") or schemas.resolved(field).get("description")
        yield from _wrapped(str(text), "    ") if text else ()
        yield ""


def _tree(schemas: Schemas, schema: JsonObject, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    for name, field in schemas.properties(schema).items():
        yield f"{'  ' * depth}{name}  <{schemas.type_of(field)}>"
        yield from _tree(schemas, field, depth + 1)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(safe(paragraph), _WIDTH, initial_indent=indent, subsequent_indent=indent)
