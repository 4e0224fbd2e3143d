"""Makes the changes of a ``mirror.Difference`` on a NIC, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from carmel.client.api import Client
from carmel.errors import AlreadyExists, NotFound
from carmel.smartnic.mirror import Change, Difference, Verb

_MANAGER = "carmel-mirror"
# Not Strict: an older NIC leaves out what it does not know.
_QUERY = {"fieldManager": _MANAGER, "fieldValidation": "Ignore"}


def make(client: Client, difference: Difference, done: Callable[[Change], None] | None = None) -> None:
    """Raises what the NIC answers; what was made before that stays made. ``done`` is told each change."""
    for change in difference.changes:
        _make(client, change)
        if done is not None:
            done(change)


def _make(client: Client, change: Change) -> None:
    kind, namespace = change.kind, change.namespace or None
    match change.verb:
        case Verb.CREATE:
            try:
                client.call("POST", kind.path(namespace), query=_QUERY, body=change.body)
            except AlreadyExists:
                # It came meanwhile, or goes at the moment: the next comparison sees what it is.
                return
        case Verb.UPDATE:
            client.call(
                "PATCH",
                kind.path(namespace, change.name),
                query=_QUERY,
                body=change.body,
                content_type="application/merge-patch+json",
            )
        case Verb.DELETE:
            try:
                client.delete(kind, namespace, change.name)
            except NotFound:
                return
