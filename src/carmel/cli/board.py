"""``carmel board``: machines that Carmel knows, and who says what of them."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from carmel.cli.complete import complete_boards
from carmel.cli.output import Output, output_option
from carmel.cli.text import columns

if TYPE_CHECKING:
    from carmel.hardware.boards import BoardFacts, Source


@click.group()
def board() -> None:
    """Boards: machines that Carmel knows by name, with a source for each fact. Needs no daemon.

    \b
    carmel board list
    carmel board show mt-jade-altra-max
    carmel plan --board mt-jade-altra-max -f vms.yaml
    """


@board.command("list")
@output_option(Output())
def list_boards(output: Output) -> None:
    """List the boards. What no source says is shown as -.

    \b
    carmel board list
    carmel board list -o json
    """
    from carmel.hardware.boards import catalogue  # all boards' facts: only when they are asked for
    from carmel.hardware.boards.told import document

    boards = catalogue().values()
    if _is_document(output):
        _print({"boards": [document(one) for one in boards]}, output)
        return
    if output.form == "name":
        for one in boards:
            click.echo(one.id)
        return
    header = ("ID", "NAME", "CORES", "NUMA NODES", "VCPUS OF A VM", "MEMORY")
    for line in columns([header, *(_row(one) for one in boards)]):
        click.echo(line)


@board.command()
@click.argument("board_id", metavar="ID", shell_complete=complete_boards)
@click.option("--sources/--no-sources", default=True, help="Say below each fact where it stands (the default).")
@output_option(Output())
def show(*, board_id: str, sources: bool, output: Output) -> None:
    """Show all that is known of a board, and where each fact stands.

    \b
    carmel board show raspberry-pi-4b
    carmel board show kunpeng-920-2p -o yaml
    """
    from carmel.hardware.boards import find_board  # all boards' facts: only when they are asked for
    from carmel.hardware.boards.told import document

    found = find_board(board_id)
    if _is_document(output):
        _print(document(found), output)
    elif output.form == "name":
        click.echo(found.id)
    else:
        for line in _lines(found, with_sources=sources):
            click.echo(line)


def _is_document(output: Output) -> bool:
    if output.form == "jsonpath":
        raise click.UsageError("boards are printed as table, yaml, json or name")
    return output.form in {"json", "yaml"}


def _print(document: dict[str, Any], output: Output) -> None:
    if output.form == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from carmel.cli.manifests import to_yaml  # YAML takes 10 ms to import

    click.echo(to_yaml(document), nl=False)


def _row(one: BoardFacts) -> tuple[str, ...]:
    from carmel.hardware.boards.told import memory

    per_socket, sockets = one.cores_per_socket, one.sockets.value
    cores = f"{sockets} x {per_socket}" if sockets and sockets > 1 else per_socket
    cells = (one.id, one.name, cores, one.nodes, one.max_vcpus, memory(one))
    return tuple("-" if text is None else str(text) for text in cells)


def _lines(found: BoardFacts, *, with_sources: bool) -> Iterator[str]:
    """Facts under each other; those of the same name (caches, quirks) below one title."""
    from carmel.hardware.boards.told import told

    width = min(shutil.get_terminal_size().columns, 120)
    facts = list(told(found))
    margin = max(len(one.name) for one in facts) + 3
    yield f"{found.name} ({found.id})"
    for name, alike in groupby(facts, key=lambda one: one.name):
        title = name
        for one in alike:
            text = "unknown" if one.text is None else one.text
            yield from _wrapped(title.ljust(margin), text, width)
            title = ""
            for source in one.sources if with_sources else ():
                yield from _wrapped(" " * (margin + 2), _cited(source), width)


def _wrapped(lead: str, text: str, width: int) -> list[str]:
    blanks = " " * len(lead)
    room = max(width, len(lead) + 30)
    return textwrap.wrap(
        text, room, initial_indent=lead, subsequent_indent=blanks, break_long_words=False, break_on_hyphens=False
    )


def _cited(source: Source) -> str:
    return f"[{source.title}: {source.where}]"
