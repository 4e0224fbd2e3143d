"""``carmel version``."""

from __future__ import annotations

import json

import click

from carmel import __version__
from carmel.cli.output import Output, output_option
from carmel.cli.session import Session, with_session
from carmel.client.objects import JsonObject
from carmel.errors import CarmelError


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only that of this program.")
@output_option(Output())
@with_session
def version(session: Session, *, client_only: bool, output: Output) -> None:
    """Print the versions of carmel and of the server it talks to.

    \b
    carmel version
    """
    server: JsonObject | None = None
    problem = None
    if not client_only:
        try:
            server = session.client.get_json("/version")
        except CarmelError as exc:
            problem = exc.message
    if output.form in {"json", "yaml"}:
        both = {"client": {"version": __version__}, **({"server": server} if server else {})}
        click.echo(json.dumps(both, indent=2))
        return
    click.echo(f"carmel  {__version__}")
    if server is not None:
        click.echo(f"server  {server.get('gitVersion')}")
    elif problem:
        click.echo(f"server  not reached: {problem}", err=True)
