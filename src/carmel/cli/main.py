"""The entry point: finds the command, and turns whatever goes wrong into a sentence and an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

import click

from carmel import __version__
from carmel.cli.commands import SECTIONS
from carmel.cli.errors import report_error, report_usage
from carmel.errors import CarmelError, InternalError

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell shows for a program that SIGINT or SIGPIPE ended."""


class _Carmel(click.Group):
    """The commands of ``commands.SECTIONS``, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [entry.name for _, entries in SECTIONS for entry in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        for _, entries in SECTIONS:
            for entry in entries:
                if entry.name == cmd_name:
                    module, _, attribute = entry.target.partition(".")
                    command = getattr(import_module(f"carmel.cli.{module}"), attribute)
                    assert isinstance(command, click.Command)
                    return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(len(entry.name) for _, entries in SECTIONS for entry in entries)
        for title, entries in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(width), entry.help) for entry in entries])


@click.group(cls=_Carmel, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="carmel")
@click.option("--context", metavar="NAME", help="Talk to this context's server instead of this host's daemon.")
@click.option("-n", "--namespace", metavar="NAME", help="Work in this namespace.")
def carmel(**_options: object) -> None:
    """Virtual machines on 64-bit Arm, behind an API that kubectl speaks.

    \b
    carmel run debian --name web     make a VM and start it
    carmel get vm                    see it
    carmel COMMAND --help            what a command does, with an example
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``carmel`` and return its exit status: see ``carmel.errors`` for which is which."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(argv)
    stdout = sys.stdout
    try:
        result = carmel.main(args=argv, prog_name="carmel", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return USAGE
    except click.UsageError as exc:
        report_usage(exc, as_json=as_json)
        return USAGE
    except CarmelError as exc:
        report_error(exc, as_json=as_json)
        return exc.exit_status
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        return _broken_pipe()
    except SystemExit:
        # click meets a reader that went away first: it silences the streams and leaves with 1, as for any error.
        if sys.stdout is stdout:
            raise
        return _broken_pipe()
    except Exception as exc:  # a bug of ours is told as such; nobody is shown a traceback unasked
        if os.environ.get("CARMEL_DEBUG"):
            raise
        report_error(_bug(exc), as_json=as_json)
        return InternalError.exit_status
    return result if isinstance(result, int) else 0


def wants_json(argv: Sequence[str]) -> bool:
    """Whether ``-o json`` was given: asked of the plain words, since they may be what is wrong."""
    for word, following in pairwise([*argv, ""]):
        if word == "--":
            return False
        if word in {"-ojson", "-o=json", "--output=json"} or (word in {"-o", "--output"} and following == "json"):
            return True
    return False


def _interrupted() -> int:
    """Once is enough: a second Ctrl-C must not meet Python while it cleans up, and be answered by a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        click.echo(err=True)
    return INTERRUPTED


def _broken_pipe() -> int:
    """The reader went away (``carmel get vm | head -1``). Python would complain of that once more at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _bug(exc: Exception) -> CarmelError:
    return InternalError(
        f"carmel failed unexpectedly: {type(exc).__name__}: {exc}",
        hint="this is a bug: run it again with CARMEL_DEBUG=1 and report what it prints",
    )
