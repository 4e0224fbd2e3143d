"""``carmel top``: CPU time that goes into I/O, by host and SmartNIC side by side."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence

import click

from carmel.cli.host_api import one_host
from carmel.cli.output import Output, output_option
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns, safe
from carmel.cli.top_figures import Reading, Spent, read_metrics, spent
from carmel.cli.waiting import DurationType
from carmel.client.objects import metadata

_CLEAR = "\x1b[H\x1b[J"


@click.command()
@click.argument("name", required=False)
@click.option(
    "--interval", type=DurationType(), default="3s", show_default=True, metavar="TIME", help="How long is measured."
)
@click.option("--once", is_flag=True, help="Measure once, and end.")
@output_option()
@with_session
def top(session: Session, *, name: str | None, interval: float, once: bool, output: Output | None) -> None:
    """Show CPU time outside guests on a host and its SmartNICs, until Ctrl-C.

    Figures are CPUs: 0.50 is half of one. What is outside guests on the host is what its own work and its guests' I/O
    cost; on a NIC everything is. So what offload saves on the one is seen beside what it costs on the other. Threads
    lie within it; of interrupts, some fall into the time of threads.

    \b
    carmel top
    carmel top --once --interval 10s
    carmel top --once -o json
    """
    if output is not None and output.form != "json":
        raise click.UsageError("top prints a table or -o json")
    host = metadata(one_host(session, name), "name")
    for figures in _measured(session, host, interval):
        if output is not None:
            click.echo(json.dumps([_document(one) for one in figures]))
        else:
            if not once and sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            for line in table(figures):
                click.echo(line)
        if once:
            return


def _measured(session: Session, host: str, seconds: float) -> Iterator[list[Spent]]:
    before = _read(session)
    while True:
        time.sleep(seconds)
        after = _read(session)
        yield spent(host, before, after)
        before = after


def _read(session: Session) -> Reading:
    return read_metrics(session.client.call("GET", "/metrics", accept="text/plain").body.decode("utf-8", "replace"))


def table(figures: Sequence[Spent]) -> Iterator[str]:
    """A column a machine; rows that say nothing of any are left out."""
    groups = list(dict.fromkeys(group for one in figures for group, _ in one.threads))
    rows = [["", *(f"{'SmartNIC' if one.is_nic else 'host'} {safe(one.name)}" for one in figures)]]
    rows.append(["CPUs", *(f"{one.cpus:.0f}" for one in figures)])
    for title, values in (
        ("busy", [one.busy for one in figures]),
        ("guests", [one.guests for one in figures]),
        ("outside guests", [one.outside for one in figures]),
        ("  interrupts", [one.interrupts for one in figures]),
        *((f"  {safe(group)}", [dict(one.threads).get(group, 0.0) for one in figures]) for group in groups),
    ):
        rows.append([title, *(f"{value:.2f}" if value >= 0.005 else "-" for value in values)])
    widths = [max(len(row[index]) for row in rows) for index in range(len(figures) + 1)]
    aligned = [[row[0], *(cell.rjust(widths[index]) for index, cell in enumerate(row) if index)] for row in rows]
    yield from columns(aligned)


def _document(one: Spent) -> dict[str, object]:
    return {
        "name": one.name,
        "kind": "SmartNIC" if one.is_nic else "Host",
        "cpus": one.cpus,
        "busy": round(one.busy, 4),
        "guests": round(one.guests, 4),
        "outsideGuests": round(one.outside, 4),
        "interrupts": round(one.interrupts, 4),
        "threads": {group: round(value, 4) for group, value in one.threads},
    }
