"""``carmel host rebalance``: running VMs to where the rest of the host is better off."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from carmel.cli.complete import complete_hosts
from carmel.cli.host_api import host_kind, one_host
from carmel.cli.output import Output, output_option, print_object
from carmel.cli.progress import Progress
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns, safe
from carmel.cli.waiting import Goal, timeout_option, wait_for
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import Refused
from carmel.units import human_bytes


@click.command()
@click.argument("name", required=False, shell_complete=complete_hosts)
@click.option("--dry-run", is_flag=True, help="Show which VMs would be moved, and move none.")
@timeout_option("15m")
@output_option()
@with_session
def rebalance(session: Session, *, name: str | None, dry_run: bool, timeout: float, output: Output | None) -> None:
    """Move running VMs on their host where that makes things better. They run on meanwhile.

    The host moves at most what spec.placement.rebalance allows in one go. VMs with dedicated CPUs stay where they
    are, unless their own spec allows it.

    \b
    carmel host rebalance --dry-run
    carmel host rebalance
    """
    if output is not None and output.form not in {"json", "yaml"}:
        raise click.UsageError("rebalance prints a table, -o json or -o yaml")
    host = one_host(session, name)
    if dry_run:
        _tell_proposed(_moves(host, "proposed"), output)
    else:
        _tell_done(_rebalanced(session, host, timeout, quiet=output is not None), output)


def _rebalanced(session: Session, host: JsonObject, seconds: float, *, quiet: bool) -> list[JsonObject]:
    """The moves that were made, or tried, because we asked; the first one first."""
    kind = host_kind(session)
    name, requested = metadata(host, "name"), _request_time(dig(host, "status", "rebalance", "answeredAt"))
    before = _moves(host, "done")
    session.client.patch(kind, None, name, {"spec": {"placement": {"rebalance": {"requestedAt": requested}}}})
    goal = Goal("rebalanced", lambda obj: (dig(obj, "status", "rebalance", "answeredAt") or "") >= requested)
    with Progress(quiet=quiet) as progress:

        def show(state: JsonObject) -> None:
            made = _new(_moves(state, "done"), before)
            last = f"{len(made)} moved, last {_vm(made[-1])}" if made else ""
            progress.step(f"rebalancing {name}", last)

        after = wait_for(session.client, kind, None, name, goal, seconds=seconds, on_change=show)
    return _new(_moves(after or {}, "done"), before)


def _request_time(answered: Any) -> str:
    """Now; but later than the last answer, which may be of this very second, or of a clock that is ahead of ours."""
    now = datetime.now(UTC)
    try:
        after = datetime.fromisoformat(str(answered)) + timedelta(seconds=1)
        now = max(now, after if after.tzinfo else after.replace(tzinfo=UTC))
    except ValueError:
        pass
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moves(host: JsonObject, which: str) -> list[JsonObject]:
    found = dig(host, "status", "rebalance", which)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _new(done: list[JsonObject], before: list[JsonObject]) -> list[JsonObject]:
    return [one for one in reversed(done) if one not in before]


def _tell_proposed(moves: list[JsonObject], output: Output | None) -> None:
    if output is not None:
        print_object({"proposed": moves}, output)
    elif not moves:
        click.echo("Nothing to move: no running VM would be better elsewhere on this host.")
    else:
        _print_table(moves)
        total = sum(one.get("memoryBytes") or 0 for one in moves)
        click.echo(f"\n{_count(moves)} would copy {human_bytes(total)}. `carmel host rebalance` makes them.")


def _tell_done(moves: list[JsonObject], output: Output | None) -> None:
    """Raises ``Refused`` (``MoveFailed``) when not all could be made: what was made is told first."""
    failed = [one for one in moves if one.get("error")]
    if output is not None:
        print_object({"done": moves}, output)
    elif not moves:
        click.echo("Nothing was moved: no running VM would be better elsewhere on this host.")
    else:
        _print_table(moves)
    if failed:
        raise Refused(
            f"{len(failed)} of {_count(moves)} failed: {_vm(failed[0])}: {failed[0]['error']}",
            code="MoveFailed",
            hint="`carmel describe vm` and `carmel events` say more; VMs that were not moved run on where they were",
        )


def _print_table(moves: Iterable[JsonObject]) -> None:
    rows = [("VM", "FROM", "TO", "MEMORY", "WHY")]
    for one in moves:
        said = f"FAILED: {one['error']}" if one.get("error") else str(one.get("reason") or "")
        rows.append((_vm(one), _place(one, "from"), _place(one, "to"), human_bytes(one.get("memoryBytes") or 0), said))
    for line in columns([tuple(safe(cell) for cell in row) for row in rows]):
        click.echo(line)


def _vm(move: JsonObject) -> str:
    return f"{move.get('namespace')}/{move.get('name')}"


def _place(move: JsonObject, which: str) -> str:
    """``node 0 (CPUs 4-7)``."""
    nodes = ",".join(str(node) for node in move.get(f"{which}Nodes") or ())
    return f"node {nodes} (CPUs {move.get(f'{which}Cpus')})"


def _count(moves: list[JsonObject]) -> str:
    return "1 move" if len(moves) == 1 else f"{len(moves)} moves"
