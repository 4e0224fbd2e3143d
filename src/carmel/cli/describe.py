"""``carmel describe``: an object for people, with its conditions and what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from carmel.cli.complete import complete_words
from carmel.cli.output import without_managed_fields
from carmel.cli.placement_words import placement_lines
from carmel.cli.session import Session, with_session
from carmel.cli.summary import summary
from carmel.cli.text import age, columns, safe
from carmel.cli.words import named_targets
from carmel.client.api import Selection
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import CarmelError

_EVENTS_SHOWN = 20
_TOLD_ELSEWHERE = {"VirtualMachine": "placement", "Host": "hardware"}
"""Parts of a status that have a form of their own: on a large machine they are thousands of lines."""


@click.command()
@click.argument("words", metavar="KIND NAME...", nargs=-1, required=True, shell_complete=complete_words)
@with_session
def describe(session: Session, *, words: tuple[str, ...]) -> None:
    """Show a resource with its conditions and events.

    \b
    carmel describe vm web
    """
    for index, target in enumerate(named_targets(session, words)):
        assert target.name is not None
        obj = session.client.get(target.kind, target.namespace, target.name)
        if index:
            click.echo()
        for line in described(target.kind, obj):
            click.echo(line)
        for line in _events(session, target.kind, obj):
            click.echo(line)


def described(kind: ResourceType, obj: JsonObject) -> Iterator[str]:
    """The lines for one object: what it is, how it is, and all of its spec and status."""
    shown = without_managed_fields(obj)
    head = [
        ("Name", metadata(obj, "name")),
        ("Namespace", metadata(obj, "namespace")),
        ("Kind", kind.kind),
        ("Labels", _pairs(dig(obj, "metadata", "labels"))),
        ("Annotations", _pairs(dig(obj, "metadata", "annotations"))),
        ("Created", _when(metadata(obj, "creationTimestamp"))),
        ("Deleted", _when(metadata(obj, "deletionTimestamp"))),
        *summary(kind, obj),
    ]
    yield from columns([(f"{name}:", safe(value)) for name, value in head if value])
    conditions = dig(obj, "status", "conditions") or []
    if conditions:
        yield "Conditions:"
        yield from _indented(columns([("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"), *map(_condition, conditions)]))
    yield from _told_elsewhere(kind, obj)
    for section in (key for key in shown if key not in {"apiVersion", "kind", "metadata", "status"}):
        value = dict.fromkeys(shown[section], "***") if _is_secret(kind, section, shown) else shown[section]
        if isinstance(value, dict | list):
            yield f"{_title(section)}:"
            yield from _tree(value, 1)
        else:
            yield f"{_title(section)}: {_leaf(value)}"
    told = {"conditions", _TOLD_ELSEWHERE.get(kind.kind)}
    status = {key: value for key, value in (shown.get("status") or {}).items() if key not in told}
    if status:
        yield "Status:"
        yield from _tree(status, 1)


def _told_elsewhere(kind: ResourceType, obj: JsonObject) -> Iterator[str]:
    """Of a VM where it is and why; of a host where that is to be seen."""
    placement = dig(obj, "status", "placement")
    if kind.kind == "VirtualMachine" and isinstance(placement, dict):
        yield "Placement:"
        yield from _indented(columns(list(_labelled(placement_lines(placement)))))
    if kind.kind == "Host" and dig(obj, "status", "hardware"):
        yield f"Hardware: `carmel host {metadata(obj, 'name')}` draws it, `-o yaml` has all of it"


def _labelled(facts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """A name that several facts in a row have stands at the first."""
    last = ""
    for name, value in facts:
        if value:
            yield "" if name == last else f"{name}:", safe(value)
            last = name


def _is_secret(kind: ResourceType, section: str, obj: JsonObject) -> bool:
    """A secret's values are not for whoever looks over a shoulder; ``get secret -o yaml`` has them."""
    return kind.kind == "Secret" and section in {"data", "stringData"} and isinstance(obj[section], dict)


def _title(field: str) -> str:
    return field[:1].upper() + field[1:]


def _pairs(value: Any) -> str:
    return ", ".join(f"{key}={text}" for key, text in value.items()) if isinstance(value, dict) else ""


def _when(timestamp: str) -> str:
    return f"{timestamp} ({age(timestamp)} ago)" if timestamp else ""


def _condition(one: JsonObject) -> tuple[str, ...]:
    since = age(str(one.get("lastTransitionTime"))) if one.get("lastTransitionTime") else ""
    return tuple(
        safe(one.get(field) or "") if field else since for field in ("type", "status", "", "reason", "message")
    )


def _indented(lines: Iterator[str], depth: int = 1) -> Iterator[str]:
    return ("  " * depth + line for line in lines)


def _tree(value: Any, depth: int) -> Iterator[str]:
    """Names of fields as the API has them, so that they can be used in a patch."""
    pad = "  " * depth
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                yield f"{pad}{safe(key)}:"
                yield from _tree(inner, depth + 1)
            else:
                yield f"{pad}{safe(key)}: {_leaf(inner)}"
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):
                first, *rest = _tree(inner, depth + 1)
                yield f"{pad}- {first.strip()}"
                yield from rest
            else:
                yield f"{pad}- {_leaf(inner)}"
    else:
        yield f"{pad}{_leaf(value)}"


def _leaf(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "<none>" if value in (None, {}, []) else safe(value)


def _events(session: Session, kind: ResourceType, obj: JsonObject) -> Iterator[str]:
    """Events are an extra: who may not read them still gets the rest."""
    try:
        listed = session.client.list(
            session.client.discovery.find_kind("v1", "Event"),
            Selection(
                metadata(obj, "namespace") or "default",
                fields=f"involvedObject.kind={kind.kind},involvedObject.name={metadata(obj, 'name')}",
            ),
        )
    except CarmelError:
        return
    found = [one for one in listed.get("items") or [] if dig(one, "involvedObject", "uid") == metadata(obj, "uid")]
    found.sort(key=event_time)
    if found:
        yield "Events:"
        rows = [
            (age(event_time(one)), *(safe(one.get(field) or "") for field in ("type", "reason", "message")))
            for one in found[-_EVENTS_SHOWN:]
        ]
        yield from _indented(columns([("LAST SEEN", "TYPE", "REASON", "MESSAGE"), *rows]))


def event_time(event: JsonObject) -> str:
    """When an event was last seen, as RFC 3339."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or metadata(event, "creationTimestamp"))
