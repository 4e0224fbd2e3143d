"""A thread that keeps one kind of a NIC's objects: it lists, watches, and begins again whenever that breaks off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from carmel.client.api import Client, Selection
from carmel.client.discovery import ResourceType
from carmel.client.endpoint import Context, HttpsEndpoint
from carmel.client.objects import JsonObject, metadata
from carmel.errors import CarmelError, Expired, Forbidden, Unauthorized
from carmel.smartnic.reading import PortKey

FIRST_SECONDS, LONGEST_SECONDS = 0.25, 8.0
"""Between tries. A NIC that was started anew is found again before anybody waits for it in earnest."""
_FORBIDDEN_SECONDS = 60.0
_LIST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher found out. ``all``: these are all there are; else ``changed`` has one object, ``None``: gone.
    ``error``: nothing is known any more."""

    kind: ResourceType
    all: Mapping[PortKey, JsonObject] | None = None
    key: PortKey = ("", "")
    changed: JsonObject | None = None
    error: CarmelError | None = None


class Watcher:
    """Calls ``tell`` from its own thread. ``start`` it once, ``stop`` it, ``join`` it."""

    def __init__(self, name: str, endpoint: HttpsEndpoint, kind: ResourceType, tell: Callable[[Told], None]) -> None:
        self.kind = kind
        self._tell = tell
        self._client = Client(Context(name, endpoint))
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"smartnic {name} {kind.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Something may be other than it was: do not wait for the next try."""
        self._wake.set()

    def stop(self) -> None:
        self._stopped.set()
        self._wake.set()
        self._client.cut()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                listed = self._client.list(self.kind, Selection(None))
                failures = 0
                self._tell(Told(self.kind, all={_key(one): one for one in listed.get("items") or ()}))
                self._follow(metadata(listed, "resourceVersion"))
            except Expired:
                continue
            except CarmelError as error:
                if self._stopped.is_set():
                    break
                failures += 1
                self._tell(Told(self.kind, error=error))
                self._wait(error, failures)
        self._client.close()

    def _follow(self, version: str) -> None:
        for event in self._client.watch(self.kind, Selection(None), version):
            gone = event.type == "DELETED"
            self._tell(Told(self.kind, key=_key(event.object), changed=None if gone else event.object))

    def _wait(self, error: CarmelError, failures: int) -> None:
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 16))
        if isinstance(error, Forbidden | Unauthorized):
            seconds = _FORBIDDEN_SECONDS
        self._wake.wait(seconds * (0.8 + 0.4 * random.random()))  # noqa: S311 - jitter, no secret
        self._wake.clear()


def _key(obj: JsonObject) -> PortKey:
    return metadata(obj, "namespace"), metadata(obj, "name")
