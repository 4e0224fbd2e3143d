"""``carmel lab``: emulated Arm hosts on this machine that run Carmel, to try and to prove things on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from carmel.cli.delete import confirm, delete_one
from carmel.cli.options import LabelType, options
from carmel.cli.output import Output, output_option, print_object
from carmel.cli.power import VM_KIND
from carmel.cli.progress import Progress
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns, duration
from carmel.cli.waiting import timeout_option
from carmel.client.contexts import context_names
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound

if TYPE_CHECKING:
    from carmel.cli.lab_profiles import Profile  # as below

_FULL_HELP = "The full size: the host image with systemd, booted by UEFI (minutes instead of seconds)."


def complete_labs(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from carmel.cli.lab_profiles import profiles  # as below

    return [name for name in dict.fromkeys(one.name for one in profiles()) if name.startswith(incomplete)]


@click.group()
def lab() -> None:
    """Make an emulated Arm server on this machine that runs Carmel, and talk to it as to any host.

    \b
    carmel lab up dual-socket
    carmel --context lab-dual-socket host
    carmel --context lab-dual-socket run micro --name a
    carmel lab down dual-socket
    """


@lab.command()
@options(
    click.argument("profile", metavar="PROFILE", shell_complete=complete_labs),
    click.option("--name", type=LabelType(), metavar="NAME", help="Call machine and context so, not lab-PROFILE."),
    click.option("--full", is_flag=True, help=_FULL_HELP),
)
@timeout_option("20m")
@output_option()
@with_session
def up(session: Session, *, profile: str, name: str | None, full: bool, timeout: float, output: Output | None) -> None:
    """Make the machine of a profile, or start it again, and wait until its Carmel answers.

    `carmel lab list` shows the profiles. The machine is a VM of this host like any other (`carmel get vm`): what it
    starts from is built first where it is missing.

    \b
    carmel lab up dual-socket
    carmel lab up raspberry-pi-4 --name pi
    """
    from carmel.cli.lab_profiles import FULL, MICRO, find_profile  # the manifests are YAML, which takes 10 ms to import
    from carmel.cli.lab_up import bring_up

    wanted = find_profile(profile, FULL if full else MICRO)
    wanted = wanted.named(name or wanted.host.name)
    with Progress(quiet=output is not None) as progress:
        vm = bring_up(session, wanted, timeout, progress)
        progress.clear()
        if output is not None:
            print_object(vm, output)
            return
        ours = [machine.name for machine in wanted.machines if not machine.is_bare]
        answers = "answer" if len(ours) > 1 else "answers"
        click.echo(f"{' and '.join(ours)} {answers} after {duration(progress.elapsed())}.")
        click.echo(f"Next: {_next_steps(wanted)}")


def _next_steps(made: Profile) -> str:
    host = f"carmel --context {made.host.name}"
    for machine in made.machines:
        if machine.is_bare:
            return f"{host} get nvmenamespaces,ports, carmel console {machine.name}"
    return f"{host} host, {host} run micro --name a, carmel console {made.host.name}"


@lab.command("list")
@with_session
def list_(session: Session) -> None:
    """List the profiles, and which of their machines there are."""
    from carmel.cli.lab_profiles import description_of, profiles

    made = list(lab_machines(session))
    contexts = set(context_names())
    rows = [("PROFILE", "SIZE", "MACHINE", "POWER", "CONTEXT", "WHAT")]
    for profile in profiles():
        vms = [vm for name, size, vm in made if (name, size) == (profile.name, profile.size)]
        for vm in vms or [{}]:
            name = metadata(vm, "name")
            power = str(dig(vm, "status", "powerState") or "")
            context = name if name in contexts else ""
            what = description_of(vm) or profile.host.description
            rows.append((profile.name, profile.size, name, power, context, what))
    for line in columns(rows):
        click.echo(line.rstrip())


@lab.command()
@options(
    click.argument("profile", metavar="PROFILE", shell_complete=complete_labs),
    click.option("--name", type=LabelType(), metavar="NAME", help="The machine's name, if it was given one."),
    click.option("--full", is_flag=True, help="The machine of the full size."),
    click.option("--force", "--yes", "-y", "force", is_flag=True, help="Do not ask."),
)
@timeout_option("5m")
@with_session
def down(session: Session, *, profile: str, name: str | None, full: bool, force: bool, timeout: float) -> None:
    """Remove a lab machine: its disks with all that is on them, its keys and its context.

    The image that it started from stays, as that of any VM does.

    \b
    carmel lab down dual-socket
    """
    from carmel.cli.lab_profiles import FULL, LAB_LABEL, MICRO, find_profile
    from carmel.cli.lab_storage import forget_storage
    from carmel.client.context_file import remove_context

    wanted = find_profile(profile, FULL if full else MICRO)
    wanted = wanted.named(name or wanted.host.name)
    machines = [machine.name for machine in wanted.machines]
    kind = session.client.discovery.find_kind(*VM_KIND)
    doomed = [
        (kind, vm)
        for of, size, vm in lab_machines(session)
        if (of, size) == (wanted.name, wanted.size) and metadata(vm, "name") in machines
    ]
    if not doomed:
        raise NotFound(
            f"there is no machine {wanted.host.name} of the lab {profile}", hint="`carmel lab list` shows which are"
        )
    confirm(doomed, force=force)
    # Who has a disk from a SmartNIC ends before it.
    nics = [nic.name for nic in wanted.smart_nics]
    for _, vm in sorted(doomed, key=lambda one: metadata(one[1], "name") in nics):
        delete_one(session, kind, vm, seconds=timeout)
    for nic in wanted.smart_nics:
        forget_storage(session, nic, seconds=timeout)
    networks = session.client.discovery.find_kind(CARMEL_API, "Network")
    ours = {metadata(network, "name") for network in wanted.networks}
    for network in session.client.list(networks, session.select(networks, labels=f"{LAB_LABEL}={wanted.name}"))[
        "items"
    ]:
        if metadata(network, "name") in ours:
            delete_one(session, networks, network, seconds=timeout)
    for machine in machines:
        remove_context(machine)


def lab_machines(session: Session) -> Iterator[tuple[str, str, JsonObject]]:
    """Profile, size and VM of each machine that there is."""
    from carmel.cli.lab_profiles import LAB_LABEL, SIZE_LABEL

    kind = session.client.discovery.find_kind(*VM_KIND)
    for vm in session.client.list(kind, session.select(kind, labels=LAB_LABEL))["items"]:
        labels = dig(vm, "metadata", "labels")
        yield labels[LAB_LABEL], labels.get(SIZE_LABEL, ""), vm
