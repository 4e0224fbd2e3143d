"""How errors look: ``error:`` and ``hint:`` for people, one JSON object for scripts. Always on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

import click

from carmel.cli.text import safe
from carmel.errors import CarmelError


def report_error(error: CarmelError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(error.to_dict()), err=True)
        return
    click.echo(f"{styled('error:', fg='red', bold=True)} {safe(error.message)}", err=True)
    if error.hint:
        click.echo(f"{styled('hint:', bold=True)} {safe(error.hint)}", err=True)


def report_usage(error: click.UsageError, *, as_json: bool) -> None:
    """A command line that cannot be understood. Click's own words; they name the option to blame."""
    command = error.ctx.command_path if error.ctx else "carmel"
    told = CarmelError(error.format_message(), code="Usage", hint=f"`{command} --help` shows how it is used")
    report_error(told, as_json=as_json)


def warn(message: str) -> None:
    click.echo(f"{styled('warning:', fg='yellow', bold=True)} {safe(message)}", err=True)


def styled(text: str, *, fg: str | None = None, bold: bool = False, to_stdout: bool = False) -> str:
    """``text`` in colour where colour is wanted."""
    return click.style(text, fg=fg, bold=bold) if colourful(sys.stdout if to_stdout else sys.stderr) else text


def colourful(stream: TextIO) -> bool:
    """Colour is for a terminal whose user has not said NO_COLOR (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()
