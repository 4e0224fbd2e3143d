"""The data plane's tables of nftables, watched: what another program changes in them is noticed at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from carmel.errors import Refused
from carmel.network.firewall.nft_attributes import BRIDGE, IPV4
from carmel.network.firewall.nft_watch import NftWatch
from carmel.network.host.nft import Nft
from carmel.network.host.refusals import not_permitted
from carmel.network.names import GUARD_TABLE, NAT_TABLE

_FAMILIES = {GUARD_TABLE: BRIDGE, NAT_TABLE: IPV4}

Told = Callable[[str, str | None], None]
"""The table, and who it was; ``None``: something was missed, and the table may have been changed."""


class WatchedNft:
    """``nft``, of which ``told`` hears when others change a table. Watching begins with the first load: before that
    there is nothing of this daemon's."""

    def __init__(self, nft: Nft, watch: NftWatch, told: Told) -> None:
        self._nft = nft
        self._watch = watch
        self._told = told
        self._watched = False

    async def load(self, table: str, script: str) -> None:
        """A change of that table alone, one at a time. Raises what ``Nft.load`` raises."""
        await self.watch()
        with self._watch.our_program((_FAMILIES[table], table)):
            await self._nft.load(script)

    async def items(self, listing: str) -> list[dict[str, Any]] | None:
        return await self._nft.items(listing)

    async def watch(self) -> None:
        """Raises ``Refused`` where this process may not, or the kernel has no nftables."""
        if self._watched:
            return
        try:
            for name, family in _FAMILIES.items():
                await self._watch.follow((family, name), functools.partial(self._told, name))
        except Refused as refused:
            raise (not_permitted() if refused.code == "NotPermitted" else refused) from refused
        self._watched = True

    def close(self) -> None:
        """The tables stay; the watch is whose it was."""
        for name, family in _FAMILIES.items():
            self._watch.forget((family, name))
