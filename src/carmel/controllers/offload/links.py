"""The links to all SmartNICs of the host, and who wants to know of their changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from carmel.client.endpoint import HttpsEndpoint
from carmel.client.objects import JsonObject
from carmel.errors import TimedOut, Unavailable
from carmel.smartnic.link import Link, NicLink, NicView

MakeLink = Callable[[str, HttpsEndpoint, Callable[[], None]], NicLink]
Listener = Callable[[str], None]
"""Told the name of the SmartNIC, in the middle of a change: it only takes a note."""


class Links:
    """One link a SmartNIC, made anew when address or credentials change."""

    def __init__(self, make: MakeLink = Link) -> None:
        self._make = make
        self._links: dict[str, tuple[HttpsEndpoint, NicLink]] = {}
        self._listeners: list[Listener] = []
        self._of_gist: list[Listener] = []
        self._gists: dict[str, object] = {}
        self._changes: dict[str, asyncio.Event] = {}

    def listen(self, listener: Listener) -> None:
        """To be told of whatever a NIC says, counters too."""
        self._listeners.append(listener)

    def listen_for_gist(self, listener: Listener) -> None:
        """To be told of what is more than counting: that comes every few seconds, and changes nothing."""
        self._of_gist.append(listener)

    async def ensure(self, name: str, endpoint: HttpsEndpoint) -> NicLink:
        known = self._links.get(name)
        if known is not None and known[0] == endpoint:
            return known[1]
        await self.drop(name)
        link = self._make(name, endpoint, lambda: self._changed(name))
        self._links[name] = endpoint, link
        return link

    async def drop(self, name: str) -> None:
        known = self._links.pop(name, None)
        if known is not None:
            await known[1].close()
            self._changed(name)
            self._gists.pop(name, None)

    async def close(self) -> None:
        links = [link for _, link in self._links.values()]
        self._links = {}
        await asyncio.gather(*(link.close() for link in links))

    def names(self) -> list[str]:
        return sorted(self._links)

    def find(self, name: str) -> NicLink | None:
        known = self._links.get(name)
        return known[1] if known is not None else None

    def get(self, name: str) -> NicLink:
        """Raises ``Unavailable`` (``NICUnreachable``)."""
        link = self.find(name)
        if link is None:
            raise Unavailable(f"there is no link to SmartNIC {name}", code="NICUnreachable")
        return link

    def view(self, name: str) -> NicView:
        link = self.find(name)
        return link.view if link is not None else NicView()

    async def wait(self, name: str, holds: Callable[[NicView], bool], seconds: float) -> NicView:
        """The view once ``holds`` says so of it. Raises ``TimedOut``."""
        changes = self._changes.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                while not holds(self.view(name)):
                    changes.clear()
                    await changes.wait()
        except TimeoutError:
            raise TimedOut(f"SmartNIC {name} did not come to it within {seconds:g} s", code="NICTooSlow") from None
        return self.view(name)

    def _changed(self, name: str) -> None:
        if (waiting := self._changes.get(name)) is not None:
            waiting.set()
        for listener in self._listeners:
            listener(name)
        gist = _gist(self.view(name))
        if self._gists.get(name) != gist:
            self._gists[name] = gist
            for listener in self._of_gist:
                listener(name)


def _gist(view: NicView) -> object:
    """Of objects what their owners wrote: what the NIC found out of ports stands in ``ports``."""
    error = None if view.error is None else (view.error.code, view.error.message)
    written = {
        plural: {key: _written(obj.get("metadata") or {}) for key, obj in objects.items()}
        for plural, objects in view.objects.items()
    }
    return view.facts, view.ports, error, written


def _written(metadata: JsonObject) -> tuple[object, ...]:
    return tuple(metadata.get(name) for name in ("uid", "generation", "labels", "deletionTimestamp"))
