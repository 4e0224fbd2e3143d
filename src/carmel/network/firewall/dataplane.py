"""Where rules are put: the host's kernel here, a SmartNIC's elsewhere. A data plane loads a ``Ruleset`` whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from carmel.network.firewall.compile import Ruleset
from carmel.network.firewall.model import Count, RuleRef


class FirewallDataPlane(Protocol):
    """``load`` is all or nothing, and what was there is in force until all of the new is."""

    async def load(self, ruleset: Ruleset) -> None:
        """Put ``ruleset`` in force, for connections that exist too. Nothing to change, nothing done.

        Raises ``Refused`` (what this machine lacks), ``Unavailable``.
        """
        ...

    async def close_unknown(self) -> None:
        """See that ports which no ruleset knows get nothing through. What an earlier daemon has put in force stays;
        if there is nothing, all ports are closed. Raises as ``load`` does."""
        ...

    def watch(self, told: Callable[[str | None], None]) -> None:
        """Call ``told`` when somebody else has changed what is loaded, with who that was (``None``: perhaps somebody
        has). The next ``load`` puts all of it back, whatever it is given."""
        ...

    async def counters(self) -> Mapping[RuleRef, Count]:
        """What each rule decided since it was loaded; those that decided nothing may be absent."""
        ...

    async def remove(self) -> None:
        """Take all rules away, as if there had been none. For the end of the firewall, not of the daemon."""
        ...
