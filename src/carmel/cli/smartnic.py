"""``carmel smartnic``: NICs with Arm cores of their own, and the hosts that they serve."""

from __future__ import annotations

from pathlib import Path

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_contexts
from carmel.cli.options import LabelType
from carmel.cli.output import Output, TablePrinter, output_option, print_object
from carmel.cli.session import Session, with_session
from carmel.errors import NotFound


@click.group()
def smartnic() -> None:
    """Show SmartNICs, join one to its host, and keep it in step.

    \b
    carmel smartnic list
    carmel smartnic show nic-1           draw host, NIC, functions and who switches what
    carmel smartnic invite --host server-1 | ssh root@server-1 carmel apply -f -
    carmel smartnic sync nic-1 --dry-run
    """


@smartnic.command("list")
@output_option(Output())
@with_session
def list_nics(session: Session, *, output: Output) -> None:
    """List the SmartNICs of the host.

    \b
    carmel smartnic list
    carmel smartnic list -o wide
    """
    kind = session.client.kind("smartnics")
    if not output.is_table:
        print_object(session.client.list(kind, session.select(kind)), output)
        return
    table = session.client.table(kind, session.select(kind))
    if table.rows:
        TablePrinter(output).print(table)
    else:
        click.echo("No SmartNICs: `carmel smartnic invite` on a NIC makes what its host applies.", err=True)


@smartnic.command()
@click.argument("name", required=False)
@click.option("--ascii", "only_ascii", is_flag=True, help="Draw with ASCII characters only.")
@output_option()
@with_session
def show(session: Session, *, name: str | None, only_ascii: bool, output: Output | None) -> None:
    """Draw a SmartNIC: its host, its functions with the VMs that have them, their representors, and who switches what.

    \b
    carmel smartnic show nic-1
    carmel smartnic show nic-1 -o yaml
    """
    kind = session.client.kind("smartnics")
    if name is not None:
        found = [session.client.get(kind, None, name)]
    else:
        found = session.client.list(kind, session.select(kind)).get("items") or []
    if not found:
        raise NotFound("there is no SmartNIC", hint="`carmel smartnic invite` on a NIC makes what its host applies")
    if output is not None:
        print_results(session, [kind] * len(found), found, output)
        return
    from carmel.cli.smartnic_show import show_nics  # for people only

    show_nics(session, found, only_ascii=only_ascii)


@smartnic.command()
@click.option("--host", required=True, type=LabelType(), metavar="NAME", help="The host that this NIC serves.")
@click.option("--name", type=LabelType(), metavar="NAME", help="What the host is to call this NIC, if not by its name.")
@click.option(
    "--address",
    default="192.168.100.2:17443",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where this NIC's daemon listens on the internal link.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 36500),
    default=7300,
    show_default=True,
    metavar="N",
    help="How long the certificate is good for.",
)
@click.option(
    "-f",
    "--filename",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there, readable by you alone, instead of printing it.",
)
def invite(*, host: str, name: str | None, address: str, days: int, filename: Path | None) -> None:
    """On the NIC: make what its host is to apply, to be joined with it.

    It is a SmartNIC, and a Secret with the certificate that the NIC will know the host by. The NIC's own authority
    signs it, its key stays nowhere on the NIC, and only the last one that was made for a host counts: to end it, invite
    the host again. Whoever has the Secret is that host.

    \b
    carmel smartnic invite --host server-1 | ssh root@server-1 carmel apply -f -
    """
    from carmel.cli.smartnic_invite import invitation, write_privately  # asyncio and YAML, 100 ms, for this alone

    text = invitation(host, name, address, days)
    if filename is None:
        click.echo(text, nl=False)
        return
    write_privately(filename, text)
    click.echo(f"{filename} has the host's key. Next, on {host}: carmel apply -f {filename.name}")


@smartnic.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--nic-context",
    metavar="NAME",
    help="The context with a token of the NIC's; the one called like the NIC when left out.",
    shell_complete=complete_contexts,
)
@output_option()
@with_session
def sync(
    session: Session, *, name: str, dry_run: bool, yes: bool, nic_context: str | None, output: Output | None
) -> None:
    """Bring a NIC's networks, ports and policies to what its host's API has.

    What would be changed is shown first, an object a line. It is written with your own credentials of the NIC, through
    the host's relay: the host itself may not. Only what was made by this is changed or removed.

    \b
    carmel smartnic sync nic-1 --dry-run
    carmel smartnic sync nic-1 --nic-context nic-1-admin
    """
    from carmel.cli.smartnic_sync import sync_nic  # pydantic, for this alone

    if output is not None and output.form not in {"json", "yaml"}:
        raise click.UsageError("sync prints lines, -o json or -o yaml")
    sync_nic(session, name, nic_context, output, dry_run=dry_run, yes=yes)
