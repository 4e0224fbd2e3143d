"""``carmel completion``: click's own script for the shell; names come from the server at each TAB."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print the completion script for your shell.

    \b
    source <(carmel completion bash)            for this shell
    carmel completion bash > ~/.local/share/bash-completion/completions/carmel
    carmel completion zsh > "${fpath[1]}/_carmel"
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "carmel", "_CARMEL_COMPLETE").source())
