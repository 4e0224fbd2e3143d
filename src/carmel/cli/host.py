"""``carmel host``: the machine, drawn; and its facts.

A group whose first command goes without saying: ``carmel host`` and ``carmel host NAME`` are ``carmel host show``. So
what people have typed since there was one host goes on working, and what else is done with a host has its place.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_hosts
from carmel.cli.errors import warn
from carmel.cli.host_api import all_vms, find_hosts, host_kind
from carmel.cli.host_rebalance import rebalance
from carmel.cli.output import Output, output_option, print_object
from carmel.cli.session import Session, with_session
from carmel.cli.summary import host_facts
from carmel.cli.text import columns, listed, safe
from carmel.client.objects import JsonObject, condition, dig, metadata
from carmel.errors import CarmelError


class _HostGroup(click.Group):
    """A first word that is no command is what ``show`` is to be told."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of ``show``, which are those of a bare ``carmel host``."""
        show.format_options(click.Context(show, info_name="host", parent=ctx.parent), formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_HostGroup, subcommand_metavar="[NAME] | COMMAND")
def host() -> None:
    """Show the host: its machine, its hypervisor, what it has left.

    \b
    carmel host                          draw it, with the VMs where they sit
    carmel host -o json
    carmel host --sysroot DIR            a machine recorded with hwloc-gather-topology
    carmel host rebalance --dry-run      what would be moved to make it better
    """


host.add_command(rebalance)


@host.command()
@click.argument("name", required=False, shell_complete=complete_hosts)
@click.option(
    "--sysroot",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Read the machine whose /sys and /proc lie in this folder. Needs no daemon.",
)
@click.option("--ascii", "only_ascii", is_flag=True, help="Draw with ASCII characters only.")
@output_option()
@with_session
def show(session: Session, *, name: str | None, sysroot: Path | None, only_ascii: bool, output: Output | None) -> None:
    """Draw the machine, and say what it is and has left.

    \b
    carmel host show
    carmel host show --sysroot /tmp/recorded -o yaml
    """
    if name in host.commands:
        raise click.UsageError(f"write `carmel host {name}` with its options behind it")
    if sysroot is not None:
        _show_recorded(sysroot, name, output, only_ascii=only_ascii)
        return
    hosts = find_hosts(session, name)
    if output is not None:
        print_results(session, [host_kind(session)] * len(hosts), hosts, output)
        return
    vms = all_vms(session) if any(dig(one, "status", "hardware") for one in hosts) else []
    for index, one in enumerate(hosts):
        if index:
            click.echo()
        _tell(one, vms, only_ascii=only_ascii)
        _tell_nics(session, metadata(one, "name"), only_ascii=only_ascii)


def _tell_nics(session: Session, host: str, *, only_ascii: bool) -> None:
    from carmel.cli.smartnic_show import nics_of, show_nics  # few hosts have one

    if found := nics_of(session, host):
        click.echo()
        show_nics(session, found, only_ascii=only_ascii)


def _show_recorded(sysroot: Path, name: str | None, output: Output | None, *, only_ascii: bool) -> None:
    from carmel.cli.host_recorded import recorded_host  # reads a machine: nothing the other ways need

    if name is not None:
        raise click.UsageError("--sysroot and a host's name do not go together")
    if output is not None and output.is_table:
        raise click.UsageError("--sysroot goes with -o json, yaml, name or jsonpath=EXPRESSION")
    read = recorded_host(sysroot)
    if output is not None:
        print_object(read, output)
    else:
        _tell(read, [], only_ascii=only_ascii)


def _tell(one: JsonObject, vms: list[JsonObject], *, only_ascii: bool) -> None:
    from carmel.cli.host_view import remarks_of, scene_of  # pydantic: not for -o json
    from carmel.cli.picture_show import show_picture

    if dig(one, "status", "hardware"):
        try:
            show_picture(scene_of(one, vms), only_ascii=only_ascii)
            click.echo()
        except CarmelError as exc:
            warn(exc.message)
    facts = [("Name", metadata(one, "name")), *host_facts(one)]
    for line in columns([(f"{fact}:", safe(value)) for fact, value in facts if value]):
        click.echo(line)
    for line in listed("Good to know", list(remarks_of(one)), shutil.get_terminal_size().columns):
        click.echo(line)
    ready = condition(one, "Ready")
    if ready.get("status") != "True" and ready.get("message"):
        click.echo(f"\n{safe(ready['message'])}")
