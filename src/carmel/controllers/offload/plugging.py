"""Functions are plugged into ports, and unplugged: by what the SmartNIC is told, and what it says."""

from __future__ import annotations

import logging

from carmel.controllers.offload.claims import Claim
from carmel.controllers.offload.links import Links
from carmel.controllers.runtime import Key
from carmel.errors import CarmelError, Conflict, NotFound, TimedOut, Unavailable
from carmel.smartnic.link import NicView, no_port

_log = logging.getLogger(__name__)

READY_SECONDS = 15.0
"""How long the NIC may take to plug a function in: its data plane works in milliseconds, after a start in seconds."""

CONNECT_SECONDS = 5.0
"""A daemon that was started just now has its first contact with the NIC before that."""


class Plugging:
    """By the links to the NICs."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def require_port(self, claim: Claim) -> None:
        """Before anything is done to the function. Raises ``Unavailable`` (``NoPortOnNIC``), the link's error."""
        smart_nic = claim.function.smart_nic
        try:
            view = await self._links.wait(smart_nic, lambda view: not view.connecting, CONNECT_SECONDS)
        except TimedOut:
            view = self._links.view(smart_nic)
        if view.error is not None:
            raise view.error
        if (claim.key.namespace or "", claim.key.name) not in view.ports:
            raise _waiting(no_port(smart_nic, claim.key.namespace or "", claim.key.name))

    async def plug_in(self, claim: Claim) -> None:
        """The NIC is told; ``wait_ready`` waits for it. Raises ``Unavailable`` (``NoPortOnNIC``, the NIC's own)."""
        smart_nic, namespace = claim.function.smart_nic, claim.key.namespace or ""
        try:
            await self._links.get(smart_nic).bind(namespace, claim.key.name, claim.function.id)
        except NotFound as error:
            raise _waiting(error) from error
        except Conflict as error:
            raise Unavailable(f"SmartNIC {smart_nic}: {error.message}", code=error.code, hint=error.hint) from error

    async def plug_again(self, claim: Claim) -> None:
        """As ``plug_in``; what stands against it may pass."""
        try:
            await self.plug_in(claim)
        except CarmelError as error:
            _log.info("%s cannot be plugged in again yet: %s", claim.key, error)

    async def wait_ready(self, claim: Claim) -> str:
        """Answers the MAC address that the guest sees. Raises ``Unavailable`` (``PortNotReadyOnNIC``)."""
        where, function = (claim.key.namespace or "", claim.key.name), claim.function

        def is_so(view: NicView) -> bool:
            port = view.ports.get(where)
            return port is not None and port.ready and port.plugged == function.id

        try:
            view = await self._links.wait(function.smart_nic, is_so, READY_SECONDS)
        except TimedOut:
            port = self._links.view(function.smart_nic).ports.get(where)
            said = f": {port.message}" if port is not None and port.message else ""
            raise Unavailable(
                f"SmartNIC {function.smart_nic} has not plugged {function.id} into {claim.key}{said}",
                code="PortNotReadyOnNIC",
                hint=f"carmel smartnic show {function.smart_nic}",
            ) from None
        return (view.ports[where].mac or claim.mac).lower()

    async def unplug(self, smart_nic: str, key: Key) -> bool:
        """Whether the NIC has taken the function out of the port, or has no such port."""
        link = self._links.find(smart_nic)
        if link is None:
            return False
        try:
            await link.bind(key.namespace or "", key.name, None)
        except NotFound:
            return True
        except CarmelError as error:
            _log.info("%s cannot be unplugged yet: %s", key, error)
            return False
        return True


def _waiting(error: NotFound) -> Unavailable:
    """It comes when somebody makes it."""
    return Unavailable(error.message, code=error.code, hint=error.hint)
