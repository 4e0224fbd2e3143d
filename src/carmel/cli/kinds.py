"""``carmel api-resources``."""

from __future__ import annotations

import json

import click

from carmel.cli.output import Output, output_option
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns


@click.command("api-resources")
@click.option("--no-headers", is_flag=True, help="Leave the line of headers out.")
@output_option(Output())
@with_session
def api_resources(session: Session, *, no_headers: bool, output: Output) -> None:
    """List the kinds that the server has, with their short names.

    \b
    carmel api-resources
    """
    kinds = session.client.discovery.all()
    if output.form == "name":
        for one in kinds:
            click.echo(f"{one.plural}.{one.group}" if one.group else one.plural)
        return
    if not output.is_table:
        if output.form != "json":
            raise click.UsageError("api-resources prints table, wide, json or name")
        fields = ("plural", "singular", "kind", "namespaced", "api_version", "short_names", "verbs")
        click.echo(json.dumps([{field: getattr(one, field) for field in fields} for one in kinds], indent=2))
        return
    header = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", *(["VERBS"] if output.form == "wide" else [])]
    rows = [] if no_headers else [header]
    for one in kinds:
        row = [one.plural, ",".join(one.short_names), one.api_version, str(one.namespaced).lower(), one.kind]
        rows.append([*row, ",".join(one.verbs)] if output.form == "wide" else row)
    for line in columns(rows):
        click.echo(line)
