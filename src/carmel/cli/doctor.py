"""``carmel doctor``."""

from __future__ import annotations

import dataclasses
import json

import click

from carmel.cli.errors import styled
from carmel.cli.output import Output, output_option
from carmel.cli.text import columns, safe
from carmel.errors import Refused

_MARKS = {"ok": ("ok", "green"), "limited": ("limited", "yellow"), "missing": ("missing", "red")}


@click.command()
@output_option(Output())
def doctor(output: Output) -> int:
    """Say what this machine can do, and how to get the rest. Needs no daemon.

    Exit status 0 when VMs can run here, 5 when something necessary is missing.

    \b
    carmel doctor
    carmel doctor -o json
    """
    from carmel.doctor import can_run_vms, examine_this_machine  # asks QEMU: asyncio and much else
    from carmel.run import SystemRunner

    findings = examine_this_machine(SystemRunner())
    able = can_run_vms(findings)
    if output.form == "json":
        found = [dataclasses.asdict(one) for one in findings]
        click.echo(json.dumps({"canRunVMs": able, "findings": found}, indent=2))
    elif output.form not in {"table", "wide"}:
        raise click.UsageError("doctor prints table or json")
    else:
        rows = [(one.subject, _MARKS[one.state][0], safe(one.found)) for one in findings]
        for one, line in zip(findings, columns(rows), strict=True):
            word, colour = _MARKS[one.state]
            click.echo(line.replace(f" {word}", f" {styled(word, fg=colour, to_stdout=True)}", 1))
            if one.remedy:
                click.echo(f"    -> {safe(one.remedy)}")
        click.echo("\nVMs can run here." if able else "\nVMs cannot run here yet: get what is missing.")
    return 0 if able else Refused.exit_status
