"""The host's link to a NIC: what the NIC has, kept up to date by watches, and the few things a host may ask of it.

The client is synchronous and works in threads of the link's own; the event loop only takes what they tell. What was
known stays known while the NIC is away, for what runs goes on running.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from carmel.client.api import Client
from carmel.client.endpoint import Context, HttpsEndpoint
from carmel.client.objects import JsonObject
from carmel.errors import CarmelError, Forbidden, NotFound, Refused, Unavailable
from carmel.resources.smartnic import Trust
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS, SMART_NICS
from carmel.smartnic.peers import is_remote
from carmel.smartnic.reading import NicFacts, NicPort, PortKey, read_nic, read_port
from carmel.smartnic.trouble import told
from carmel.smartnic.watching import Told, Watcher

T = TypeVar("T")

_NEEDED = (SMART_NICS, NETWORKS, PORTS)
"""What every NIC lets its host read; the rest comes with trust Full."""
_WATCHED = (*_NEEDED, NAMESPACES, POLICIES)
_CALL_SECONDS = 10.0
_CLOSE_SECONDS = 1.0

CONNECTING = "Connecting"
"""The code of an error that is none yet: there was no contact so far."""

Objects = Mapping[PortKey, JsonObject]


@dataclass(frozen=True, slots=True)
class NicView:
    """What is known of a NIC. ``error``: why it is not being watched now; then the rest is what it was before.

    ``ports`` are those that it switches, so not remote ones. ``objects`` are those of its store, by the plural of their
    kind; a kind that the host may not read is not there.
    """

    facts: NicFacts | None = None
    ports: Mapping[PortKey, NicPort] = field(default_factory=dict)
    objects: Mapping[str, Objects] = field(default_factory=dict)
    error: CarmelError | None = None

    @property
    def reached(self) -> bool:
        return self.error is None and self.facts is not None

    @property
    def connecting(self) -> bool:
        """Nothing is known yet, neither good nor bad."""
        return self.error is not None and self.error.code == CONNECTING

    @property
    def mirrored(self) -> bool:
        """The host may say what networks, ports and policies there are, and sees all of them."""
        known = {kind.plural for kind in _WATCHED}
        return self.reached and self.facts is not None and self.facts.trust is Trust.FULL and known <= set(self.objects)


class NicLink(Protocol):
    """A link, as controllers use it."""

    @property
    def view(self) -> NicView: ...

    async def bind(self, namespace: str, name: str, function: str | None) -> None:
        """Plug the function into the NIC's Port, or pull it out. Raises ``NotFound`` (``NoPortOnNIC``), ``Refused``,
        ``Unavailable`` (``NICUnreachable``)."""
        ...

    async def ask(self, work: Callable[[Client], T]) -> T:
        """Work with a client of the NIC, in a thread of the link's. Raises what it raises, in the NIC's name."""
        ...

    def look(self) -> None:
        """Try at once what is waited with."""
        ...

    async def close(self) -> None:
        """Ends within about a second, whatever the NIC does."""
        ...


class Link:
    """A ``NicLink`` over mutual TLS. Make it in the event loop whose ``changed`` it calls."""

    def __init__(self, name: str, endpoint: HttpsEndpoint, changed: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self._name = name
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, dict[PortKey, JsonObject]] = {}
        self._errors: dict[str, CarmelError] = {}
        self._ports: dict[PortKey, NicPort] = {}
        self._view = NicView(error=Unavailable(f"SmartNIC {name} was not reached yet", code=CONNECTING))
        self._client = Client(Context(name, endpoint))
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"smartnic {name}")
        self._watchers = [Watcher(name, endpoint, kind, self._hear) for kind in _WATCHED]
        for watcher in self._watchers:
            watcher.start()

    @property
    def view(self) -> NicView:
        return self._view

    def look(self) -> None:
        for watcher in self._watchers:
            watcher.look()

    async def bind(self, namespace: str, name: str, function: str | None) -> None:
        path = PORTS.path(namespace, name, "binding")

        def post(client: Client) -> None:
            client.call("POST", path, body={"function": function}, seconds=_CALL_SECONDS)

        try:
            try:
                await self.ask(post)
            except Unavailable:
                if not self._view.reached:
                    raise
                # The connection was one with a daemon that has been started anew since. Asked twice it is the same.
                await self.ask(post)
        except NotFound:
            raise no_port(self._name, namespace, name) from None

    async def ask(self, work: Callable[[Client], T]) -> T:
        def asked() -> T:
            try:
                return work(self._client)
            except CarmelError as error:
                raise told(self._name, self.endpoint, error) from error

        try:
            return await self._loop.run_in_executor(self._asking, asked)
        except RuntimeError:  # the executor was shut down
            raise Unavailable(f"the link to SmartNIC {self._name} was closed", code="NICUnreachable") from None

    async def close(self) -> None:
        self._client.cut()
        for watcher in self._watchers:
            watcher.stop()
        # What is in its queue fails at once: to cancel it would be to cancel whoever waits for it.
        self._asking.shutdown(wait=False)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        until = time.monotonic() + _CLOSE_SECONDS
        for watcher in self._watchers:
            watcher.join(max(0.0, until - time.monotonic()))
        self._client.close()

    # -- what the watchers tell ---------------------------------------------------------------------------------
    def _hear(self, what: Told) -> None:
        """In a watcher's thread."""
        if what.error is not None:
            what = Told(what.kind, error=self._named(what))
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, what)

    def _named(self, what: Told) -> CarmelError:
        assert what.error is not None
        if what.kind not in _NEEDED and isinstance(what.error, Forbidden):
            return what.error
        return told(self._name, self.endpoint, what.error)

    def _take(self, what: Told) -> None:
        plural = what.kind.plural
        if what.error is not None:
            self._errors[plural] = what.error
            if isinstance(what.error, Forbidden):
                self._known.pop(plural, None)
        elif what.all is not None:
            self._errors.pop(plural, None)
            self._known[plural] = dict(what.all)
            if what.kind is PORTS:
                self._ports = {key: read_port(one) for key, one in what.all.items() if not is_remote(one)}
        else:
            self._change(what)
        before = self._view
        self._view = self._look()
        if _trust(before) is not _trust(self._view):
            # What was forbidden may be allowed now.
            self.look()
        self._changed()

    def _change(self, what: Told) -> None:
        known = self._known.setdefault(what.kind.plural, {})
        if what.kind is PORTS:
            self._ports.pop(what.key, None)
            if what.changed is not None and not is_remote(what.changed):
                self._ports[what.key] = read_port(what.changed)
        if what.changed is None:
            known.pop(what.key, None)
        else:
            known[what.key] = what.changed

    def _look(self) -> NicView:
        themselves = self._known.get(SMART_NICS.plural)
        itself = next((themselves[key] for key in sorted(themselves)), None) if themselves else None
        facts = read_nic(itself) if itself is not None else None
        return NicView(facts, dict(self._ports), {k: dict(v) for k, v in self._known.items()}, self._error(facts))

    def _error(self, facts: NicFacts | None) -> CarmelError | None:
        for kind in _NEEDED:
            if (error := self._errors.get(kind.plural)) is not None:
                return error
        if any(kind.plural not in self._known for kind in _NEEDED):
            return Unavailable(f"SmartNIC {self._name} was not reached yet", code=CONNECTING)
        if facts is None:
            return Refused(
                f"what answers at {self.endpoint.host}:{self.endpoint.port} is not a SmartNIC",
                code="NotASmartNIC",
                hint="on the NIC, carmeld runs with --role smartnic",
            )
        return None


def no_port(nic: str, namespace: str, name: str) -> NotFound:
    return NotFound(
        f"SmartNIC {nic} has no Port {namespace}/{name}",
        code="NoPortOnNIC",
        hint=f"its administrator makes it: carmel smartnic sync {nic}",
    )


def _trust(view: NicView) -> Trust | None:
    return view.facts.trust if view.facts is not None else None
