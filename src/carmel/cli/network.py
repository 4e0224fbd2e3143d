"""``carmel network``: networks of the host, and uplinks whose addresses moved to a bridge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_networks
from carmel.cli.output import Output, TablePrinter, output_option, print_object
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, timeout_option, wait_for
from carmel.client.objects import JsonObject, condition, dig
from carmel.errors import Refused


@click.group()
def network() -> None:
    """List networks, and keep an uplink that was taken over.

    \b
    carmel network list
    carmel network confirm lan
    """


@network.command("list")
@output_option(Output())
@with_session
def list_networks(session: Session, *, output: Output) -> None:
    """List the networks of the host.

    \b
    carmel network list
    carmel network list -o wide        with what realises them, and why they are not ready
    """
    kind = session.client.kind("networks")
    if output.is_table:
        TablePrinter(output).print(session.client.table(kind, session.select(kind)))
    else:
        print_object(session.client.list(kind, session.select(kind)), output)


@network.command()
@click.argument("name", shell_complete=complete_networks)
@timeout_option("30s")
@output_option()
@with_session
def confirm(session: Session, *, name: str, timeout: float, output: Output | None) -> None:
    """Say that the host can still be reached: the addresses that a bridge took over from its uplink stay there.

    Without it they move back by themselves (spec.bridge.confirmSeconds).

    \b
    carmel network confirm lan
    """
    kind = session.client.kind("networks")
    found = session.client.get(kind, None, name)
    if dig(found, "status", "takeover", "phase") == "Confirmed":
        click.echo(f"{name} was confirmed before.", err=True)
    else:
        _require_waiting(found, name)
        patch = {"spec": {"bridge": {"confirmedAt": _now(found)}}}
        session.client.patch(kind, None, name, patch)
        found = wait_for(session.client, kind, None, name, _CONFIRMED, seconds=timeout) or found
        if dig(found, "status", "takeover", "phase") != "Confirmed":
            raise _rolled_back(found, name)
    if output is not None:
        print_results(session, [kind], [found], output)
    else:
        click.echo(f"{name} stays as it is.")


def _settled(network: JsonObject | None) -> bool:
    return dig(network, "status", "takeover", "phase") in {"Confirmed", "RolledBack"}


_CONFIRMED = Goal("confirmed", _settled)


def _require_waiting(network: JsonObject, name: str) -> None:
    phase = dig(network, "status", "takeover", "phase")
    if phase == "RolledBack":
        raise _rolled_back(network, name)
    if phase != "Waiting":
        raise Refused(
            f"nothing of the network {name} waits to be confirmed",
            code="NothingToConfirm",
            hint="only a network with spec.bridge.takeover waits, once its uplink had addresses of the host",
        )


def _rolled_back(network: JsonObject, name: str) -> Refused:
    message = str(condition(network, "Ready").get("message") or f"the uplink of the network {name} was put back")
    return Refused(message.rstrip("."), code="RolledBack")


def _now(network: JsonObject) -> str:
    """Later than the takeover by the host's clock, which may be another than ours."""
    started = datetime.fromisoformat(str(dig(network, "status", "takeover", "startedAt")))
    later = max(datetime.now(UTC), started + timedelta(seconds=1))
    return later.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
