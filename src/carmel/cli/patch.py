"""``carmel patch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from carmel.cli.apply import finish
from carmel.cli.complete import complete_words
from carmel.cli.output import Output, output_option, told
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, timeout_option, wait_option
from carmel.cli.words import one_target
from carmel.errors import Refused


@click.command()
@click.argument("words", metavar="KIND NAME", nargs=-1, required=True, shell_complete=complete_words)
@click.option("-p", "--patch", "text", metavar="PATCH", help="The patch, as JSON or YAML.")
@click.option("--patch-file", type=click.Path(dir_okay=False), metavar="FILE", help="A file that holds the patch.")
@click.option(
    "--type",
    "patch_type",
    type=click.Choice(["merge", "json"]),
    default="merge",
    show_default=True,
    help="A merge patch (RFC 7386) or a JSON patch (RFC 6902).",
)
@click.option("--dry-run", is_flag=True, help="Have the server check it and change nothing.")
@wait_option
@timeout_option("5m")
@output_option()
@with_session
def patch(
    session: Session,
    *,
    words: tuple[str, ...],
    text: str | None,
    patch_file: str | None,
    patch_type: str,
    dry_run: bool,
    goal: Goal | None,
    timeout: float,
    output: Output | None,
) -> None:
    """Change some fields of a resource.

    \b
    carmel patch vm web -p 'spec: {cpu: {count: 4}}'
    carmel patch vm web --type json -p '[{"op": "remove", "path": "/metadata/labels/old"}]'
    """
    if (text is None) == (patch_file is None):
        raise click.UsageError("give the patch by --patch or --patch-file")
    body = _parsed(text if text is not None else _read(str(patch_file)), patch_type)
    target = one_target(session, words)
    assert target.name is not None
    after = session.client.patch(
        target.kind,
        target.namespace,
        target.name,
        body,
        patch_type="json" if patch_type == "json" else "merge",
        dry_run=dry_run,
    )
    if output is None:
        click.echo(f"{told(target.kind, target.name)} patched{' (dry run)' if dry_run else ''}")
    finish(session, [(target.kind, after)], None if dry_run else goal, timeout, output)


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"{file} cannot be read: {exc}", code="FileUnreadable") from exc


def _parsed(text: str, patch_type: str) -> Any:
    from carmel.cli.manifests import parse_value  # YAML takes 10 ms to import

    body = parse_value(text, "the patch")
    wanted = list if patch_type == "json" else dict
    if not isinstance(body, wanted):
        raise click.UsageError(f"a {patch_type} patch is {'a list of operations' if wanted is list else 'an object'}")
    return body
