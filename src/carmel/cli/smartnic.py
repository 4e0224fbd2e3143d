"""``carmel smartnic``: NICs with Arm cores of their own, and the hosts that they serve."""

from __future__ import annotations

from pathlib import Path

import click

from carmel.cli.options import LabelType


@click.group()
def smartnic() -> None:
    """Join a SmartNIC to its host.

    \b
    carmel smartnic invite --host server-1 | ssh root@server-1 carmel apply -f -
    """


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
