"""``carmel console``: this terminal becomes the VM's serial terminal; a pipe works too."""

from __future__ import annotations

import sys

import click

from carmel.cli.complete import complete_vms
from carmel.cli.power import VM_KIND
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import DurationType


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vms)
@click.option(
    "--linger",
    type=DurationType(),
    metavar="TIME",
    help="With a pipe as input: leave that long after its end. Without, stay until the VM ends or Ctrl-C.",
)
@click.option("--until", metavar="TEXT", help="Leave when the VM has printed this.")
@click.option(
    "--timeout", type=DurationType(), metavar="TIME", help="With --until: give up after that (exit status 6)."
)
@with_session
def console(session: Session, *, name: str, linger: float | None, until: str | None, timeout: float | None) -> None:
    """Attach to a VM's serial console. Ctrl-] leaves it; the VM runs on.

    \b
    carmel console web
    echo 'uname -a' | carmel console web --linger 2s
    carmel console web --until 'login:' --timeout 2m </dev/null
    """
    from carmel.cli.terminal import Attachment  # WebSockets take 60 ms to import, and only this command has any
    from carmel.client.console import open_console

    if timeout is not None and until is None:
        raise click.UsageError("--timeout goes with --until")
    kind = session.client.discovery.find_kind(*VM_KIND)
    path = kind.path(session.namespace, name, "console")
    with open_console(session.client.context.endpoint, path) as opened:
        on_terminal = sys.stdin.isatty()
        if on_terminal:
            click.echo(f"Attached to {name}. Ctrl-] leaves.", err=True)
        attachment = Attachment(opened, linger=linger, until=until.encode() if until else None, timeout=timeout)
        ended = attachment.run(sys.stdin.fileno(), sys.stdout.fileno())
    if on_terminal:
        click.echo(f"\r\n{ended}", err=True)
