"""Who has which function: the Ports of the host say it, and this is what they say, in one hand.

Only this writes ``status.smartNIC`` and ``status.function`` of Ports. Each is in the store before it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from carmel.controllers.offload.choosing import UNUSABLE, Function, Wish, choose
from carmel.controllers.runtime import Key, Resources, Runtime, key_of
from carmel.controllers.runtime.informer import Change
from carmel.errors import NotFound, Unavailable
from carmel.resources.port import PORT, DataPlane, Port
from carmel.resources.smartnic import SMART_NIC, FunctionStatus, SmartNIC

MANAGER = "offload-controller"


@dataclass(frozen=True, slots=True)
class Claim:
    """The Port ``key`` of the VM with uid ``owner`` has ``function``. ``mac`` is the one that the guest sees."""

    key: Key
    owner: str
    nic: str
    function: Function
    mac: str


class Claims:
    """Build it before the runtime starts, ``load`` it before it is used."""

    def __init__(self, runtime: Runtime) -> None:
        self._ports: Resources[Port] = runtime.resources(PORT, Port, manager=MANAGER)
        self._smart_nics: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager=MANAGER)
        self._lock = asyncio.Lock()
        self._claims: dict[Key, Claim] = {}
        self._kept: dict[Key, tuple[str, str]] = {}
        self._listeners: list[Callable[[str], None]] = []
        runtime.informer(PORT).listen(self._port_changed)

    def listen(self, listener: Callable[[str], None]) -> None:
        """``listener`` is told the name of a SmartNIC of which a function was claimed or freed."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """What an earlier daemon wrote."""
        for port in await self._ports.list():
            self._note(port)

    def all(self) -> list[Claim]:
        return list(self._claims.values())

    def of_owner(self, uid: str) -> list[Claim]:
        return [one for one in self._claims.values() if one.owner == uid]

    def of_nic(self, smart_nic: str) -> list[Claim]:
        return [one for one in self._claims.values() if one.function.smart_nic == smart_nic]

    def find(self, key: Key) -> Claim | None:
        return self._claims.get(key)

    def before(self, key: Key) -> tuple[str | None, str | None]:
        """SmartNIC and MAC address that the Port had last."""
        claim = self._claims.get(key)
        return (claim.function.smart_nic, claim.mac) if claim is not None else self._kept.get(key, (None, None))

    async def claim(self, key: Key, wish: Wish, bound: Mapping[Function, Key]) -> tuple[Claim, FunctionStatus]:
        """A function for the Port; the one that it has already, if that will do. ``bound``: what the NICs say is
        plugged into which of their ports.

        Raises ``Unavailable`` (``WaitingForPort``), and what ``choose`` raises.
        """
        async with self._lock:
            port = await self._ports.find(key)
            if port is None:
                raise Unavailable(f"the Port {key} is not made yet", code="WaitingForPort")
            smart_nics = await self._smart_nics.list()
            others = {one.function for one in self._claims.values() if one.key != key}
            others |= {function for function, where in bound.items() if where != key}
            mine = self._claims.get(key)
            if mine is not None and mine.function in set(_usable(smart_nics)):
                # It may be plugged in already: no other is taken while this one will do.
                others |= {one for one in _usable(smart_nics) if one != mine.function}
            kept = {one for where, one in self._kept.items() if where != key}
            function, status = choose(wish, smart_nics, others, kept)
            claim = Claim(key, port.spec.owner, port.spec.nic, function, (status.mac or port.spec.mac).lower())
            await self._ports.update_status(port, lambda one: _write(one, claim))
            self._claims[key] = claim
        self._tell(function.smart_nic)
        return claim, status

    async def free(self, claim: Claim) -> None:
        """The function was unplugged on the NIC."""
        async with self._lock:
            if self._claims.get(claim.key) != claim:
                return
            port = await self._ports.find(claim.key)
            if port is not None and port.status.function == claim.function.id:
                with contextlib.suppress(NotFound):
                    await self._ports.update_status(port, _strike)
            del self._claims[claim.key]
            self._kept[claim.key] = claim.function.smart_nic, claim.mac
        self._tell(claim.function.smart_nic)

    def _note(self, port: Port) -> None:
        status = port.status
        if status.smart_nic is None:
            return
        key, mac = key_of(port), status.mac or port.spec.mac
        if status.function is None:
            self._kept[key] = status.smart_nic, mac
            return
        function = Function(status.smart_nic, status.function)
        self._claims[key] = Claim(key, port.spec.owner, port.spec.nic, function, mac)

    def _port_changed(self, change: Change) -> None:
        """A Port that is gone has nothing. What is plugged on the NIC all the same is found there."""
        if change.new is not None:
            return
        self._kept.pop(change.key, None)
        claim = self._claims.pop(change.key, None)
        if claim is not None:
            self._tell(claim.function.smart_nic)

    def _tell(self, smart_nic: str) -> None:
        for listener in self._listeners:
            listener(smart_nic)


def _usable(smart_nics: Iterable[SmartNIC]) -> Iterable[Function]:
    return (
        Function(nic.metadata.name, one.id)
        for nic in smart_nics
        for one in nic.status.functions or ()
        if one.state not in UNUSABLE
    )


def _write(port: Port, claim: Claim) -> None:
    if port.status.data_plane is not DataPlane.SMART_NIC:
        port.status.interface = None
    port.status.data_plane = DataPlane.SMART_NIC
    port.status.smart_nic = claim.function.smart_nic
    port.status.function = claim.function.id
    port.status.mac = claim.mac


def _strike(port: Port) -> None:
    """SmartNIC and MAC address stay: they are best again at the next start."""
    port.status.function = port.status.interface = None
    port.status.counters = port.status.counted_at = port.status.addresses = None
