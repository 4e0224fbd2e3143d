"""``carmel wait``."""

from __future__ import annotations

import click

from carmel.cli.complete import complete_words
from carmel.cli.output import Output, output_option, print_object, told
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, GoalType, timeout_option, wait_for
from carmel.cli.words import named_targets


@click.command()
@click.argument("words", metavar="KIND NAME...", nargs=-1, required=True, shell_complete=complete_words)
@click.option(
    "--for",
    "goal",
    type=GoalType(),
    default="ready",
    show_default=True,
    metavar="GOAL",
    help="ready, running, stopped, paused, suspended, deleted, condition=TYPE[=STATUS] or jsonpath=PATH[=VALUE].",
)
@timeout_option("5m")
@output_option()
@with_session
def wait(session: Session, *, words: tuple[str, ...], goal: Goal, timeout: float, output: Output | None) -> None:
    """Wait until a resource is as you want it (exit status 6 when it takes too long).

    \b
    carmel wait vm web --for=ready --timeout 2m
    carmel wait image debian --for=jsonpath=.status.phase=Ready
    """
    for target in named_targets(session, words):
        assert target.name is not None
        found = wait_for(session.client, target.kind, target.namespace, target.name, goal, seconds=timeout)
        if output is None or found is None:
            click.echo(f"{told(target.kind, target.name)} {goal.text}")
        else:
            print_object(found, Output("name") if output.is_table else output)
