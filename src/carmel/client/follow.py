"""Following one object: every state it takes, across watches that end and a daemon that is restarted meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

from carmel.client.api import Client, by_name
from carmel.client.discovery import ResourceType
from carmel.client.objects import JsonObject, metadata
from carmel.errors import Expired, TimedOut, Unavailable

_GRACE_SECONDS = 15.0
"""How long a daemon may be away in the middle: long enough for an upgrade, short enough to be told of a crash."""
_PAUSE_SECONDS = 0.25


def follow(
    client: Client, kind: ResourceType, namespace: str | None, name: str, *, deadline: float | None = None
) -> Iterator[JsonObject | None]:
    """The object as it is, then after each change; ``None`` while it is not there.

    ``deadline`` is a ``time.monotonic``. Raises ``TimedOut`` there, ``Unavailable`` when the server is away for
    longer than a restart takes, and whatever it answers.
    """
    selection = by_name(namespace, name)
    give_up: float | None = 0.0
    while True:
        try:
            listed = client.list(kind, selection)
            give_up = None
            items = listed.get("items") or []
            yield items[0] if items else None
            for event in client.watch(kind, selection, metadata(listed, "resourceVersion"), deadline=deadline):
                yield None if event.type == "DELETED" else event.object
        except Expired:
            continue
        except Unavailable:
            now = time.monotonic()
            give_up = now + _GRACE_SECONDS if give_up is None else give_up
            if now >= give_up:
                raise
            if deadline is not None and now >= deadline:
                raise TimedOut("the time is over") from None
            time.sleep(_PAUSE_SECONDS)
