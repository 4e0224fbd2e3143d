"""``carmel edit``: an object in the user's editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from carmel.cli.complete import complete_words
from carmel.cli.manifests import parse_documents, to_yaml
from carmel.cli.output import told, without_managed_fields
from carmel.cli.session import Session, with_session
from carmel.cli.words import one_target
from carmel.client.objects import JsonObject, metadata
from carmel.errors import CarmelError, Invalid, Refused

_HEADER = "# Change what you like below and save. Nothing is changed when nothing was edited, or all was deleted.\n"


@click.command()
@click.argument("words", metavar="KIND NAME", nargs=-1, required=True, shell_complete=complete_words)
@with_session
def edit(session: Session, *, words: tuple[str, ...]) -> None:
    """Change a resource in your editor ($VISUAL, $EDITOR, else vi).

    \b
    carmel edit vm web
    EDITOR=nano carmel edit vm web
    """
    target = one_target(session, words)
    assert target.name is not None
    before = session.client.get(target.kind, target.namespace, target.name)
    original = _HEADER + to_yaml(_editable(before))
    descriptor, name = tempfile.mkstemp(prefix=f"carmel-{target.name}-", suffix=".yaml")
    file = Path(name)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(original)
    keep = False
    try:
        _run_editor(file)
        text = file.read_text("utf-8")
        if text == original or not text.strip():
            click.echo("Nothing was changed.", err=True)
            return
        keep = True
        wanted = _read_back(text, before)
        # What was changed, and not all of it: controllers write meanwhile, and that is no conflict.
        after = session.client.patch(target.kind, target.namespace, target.name, changes(_editable(before), wanted))
        keep = False
    except CarmelError as exc:
        if keep:
            exc.hint = f"what you wrote is kept in {file}"
        raise
    finally:
        if not keep:
            file.unlink(missing_ok=True)
    changed = metadata(after, "resourceVersion") != metadata(before, "resourceVersion")
    click.echo(f"{told(target.kind, target.name)} {'edited' if changed else 'unchanged'}")


def changes(before: JsonObject, after: JsonObject) -> JsonObject:
    """The merge patch (RFC 7396) that makes ``after`` of ``before``."""
    patch: JsonObject = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(before[key], dict):
            if below := changes(before[key], value):
                patch[key] = below
        elif value != before[key]:
            patch[key] = value
    return patch


def _editable(obj: JsonObject) -> JsonObject:
    """Without what only the server writes."""
    return {key: value for key, value in without_managed_fields(obj).items() if key != "status"}


def _read_back(text: str, before: JsonObject) -> JsonObject:
    found = parse_documents(text, "what you wrote")
    if len(found) != 1:
        raise Invalid("what you wrote is not one object", code="ManifestUnreadable")
    after = found[0]
    if (after["kind"], metadata(after, "name")) != (before["kind"], metadata(before, "name")):
        raise Invalid("kind and name cannot be edited", code="NameChanged", field="metadata.name")
    return after


def _run_editor(file: Path) -> None:
    """The editor gets our terminal, which no runner of programs has to give."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise Refused("there is no terminal to edit on", code="NoTerminal", hint="use `carmel patch` or `carmel apply`")
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        status = subprocess.run([*words, str(file)], check=False).returncode
    except OSError as exc:
        raise Refused(f"the editor {words[0]} cannot be started: {exc.strerror}", code="ProgramMissing") from exc
    if status != 0:
        raise Refused(f"the editor {words[0]} failed (exit status {status})", code="EditorFailed")
