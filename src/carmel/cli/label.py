"""``carmel label`` and ``carmel annotate``."""

from __future__ import annotations

import click

from carmel.cli.complete import complete_words
from carmel.cli.output import Output, output_option, print_object, told
from carmel.cli.session import Session, with_session
from carmel.cli.words import named_targets
from carmel.client.objects import dig
from carmel.errors import Conflict


@click.command()
@click.argument(
    "words", metavar="KIND NAME... KEY=VALUE|KEY-...", nargs=-1, required=True, shell_complete=complete_words
)
@click.option("--overwrite", is_flag=True, help="Change labels that are set already.")
@output_option()
@with_session
def label(session: Session, *, words: tuple[str, ...], overwrite: bool, output: Output | None) -> None:
    """Set labels, or remove them with a dash behind the key.

    \b
    carmel label vm web tier=front
    carmel label vm web tier-
    """
    _change(session, "labels", words, overwrite=overwrite, output=output)


@click.command()
@click.argument(
    "words", metavar="KIND NAME... KEY=VALUE|KEY-...", nargs=-1, required=True, shell_complete=complete_words
)
@click.option("--overwrite", is_flag=True, help="Change annotations that are set already.")
@output_option()
@with_session
def annotate(session: Session, *, words: tuple[str, ...], overwrite: bool, output: Output | None) -> None:
    """Set annotations, or remove them with a dash behind the key.

    \b
    carmel annotate vm web note='made for the demo'
    """
    _change(session, "annotations", words, overwrite=overwrite, output=output)


def _change(session: Session, field: str, words: tuple[str, ...], *, overwrite: bool, output: Output | None) -> None:
    names, changes = _split(words)
    for target in named_targets(session, names):
        assert target.name is not None
        before = dig(session.client.get(target.kind, target.namespace, target.name), "metadata", field) or {}
        taken = [key for key, value in changes.items() if value is not None and before.get(key, value) != value]
        if taken and not overwrite:
            raise Conflict(
                f"{told(target.kind, target.name)} has {taken[0]}={before[taken[0]]} already",
                code="AlreadySet",
                hint="--overwrite changes it",
                field=f"metadata.{field}",
            )
        patch = {"metadata": {field: changes}}
        after = session.client.patch(target.kind, target.namespace, target.name, patch)
        if output is not None:
            print_object(after, Output("name") if output.is_table else output)
        else:
            did = "labelled" if field == "labels" else "annotated"
            click.echo(f"{told(target.kind, target.name)} {did}")


def _split(words: tuple[str, ...]) -> tuple[list[str], dict[str, str | None]]:
    names: list[str] = []
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            changes[key] = value
        elif word.endswith("-") and names:
            changes[word[:-1]] = None
        else:
            names.append(word)
    if not changes:
        raise click.UsageError("say what to set: KEY=VALUE, or KEY- to remove it")
    return names, changes
