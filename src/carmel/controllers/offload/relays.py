"""The relays of all SmartNICs of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from carmel.resources.host import HostEndpoint
from carmel.smartnic.credentials import split_address
from carmel.smartnic.relay import Relay, bind


@dataclass(frozen=True, slots=True)
class _Running:
    relay: Relay
    target: tuple[str, int]
    wanted: int | None
    url: str


class Relays:
    """``address`` is the one of the host that they listen on, ``url_host`` the one in their URLs."""

    def __init__(self, address: str, url_host: str) -> None:
        self._address = address
        self._url_host = url_host
        self._running: dict[str, _Running] = {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Tell ``listener`` when ``endpoints`` are others."""
        self._listeners.append(listener)

    async def ensure(self, name: str, target: str, wanted: int | None, before: str | None) -> str:
        """The URL of the relay to ``target``; ``before`` is that of an earlier time, whose port is taken again if it is
        free. Raises ``Refused`` (``PortInUse``, ``AddressNotUsable``), and then there is none."""
        there = split_address(target)
        known = self._running.get(name)
        if known is not None and (known.target, known.wanted) == (there, wanted):
            return known.url
        await self.drop(name)
        relay = Relay(*there)
        relay.start(bind(self._address, wanted, _port_of(before or (known.url if known is not None else None))))
        url = f"https://{self._url_host}:{relay.listens_at}"
        self._running[name] = _Running(relay, there, wanted, url)
        self._tell()
        return url

    async def drop(self, name: str) -> None:
        known = self._running.pop(name, None)
        if known is not None:
            await known.relay.close()
            self._tell()

    async def close(self) -> None:
        running, self._running = self._running, {}
        await asyncio.gather(*(one.relay.close() for one in running.values()))

    def endpoints(self) -> list[HostEndpoint]:
        """As the Host tells them."""
        return [HostEndpoint(name=f"smartnic-{name}", url=one.url) for name, one in sorted(self._running.items())]

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def _port_of(url: str | None) -> int | None:
    try:
        return urlsplit(url).port if url is not None else None
    except ValueError:
        return None
