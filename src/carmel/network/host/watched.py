"""The data plane's tables of nftables, watched: what another program changes in them is noticed at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carmel.errors import Refused
from carmel.network.firewall.nft_attributes import BRIDGE, IPV4
from carmel.network.firewall.nft_socket import NftSocket
from carmel.network.firewall.nft_watch import NftWatch
from carmel.network.host.nft import Nft
from carmel.network.host.refusals import not_permitted
from carmel.network.names import GUARD_TABLE, NAT_TABLE
from carmel.run import Runner

_TABLES = ((BRIDGE, GUARD_TABLE), (IPV4, NAT_TABLE))

Told = Callable[[str, str | None], None]
"""The table, and who it was; ``None``: something was missed, and the table may have been changed."""


class WatchedNft:
    """``Nft``, of which ``told`` hears when others change a table: its name and who it was. Watching begins with the
    first load: before that there is nothing of this daemon's."""

    def __init__(self, runner: Runner, namespace: Path | None, told: Told) -> None:
        self._nft = Nft(runner, namespace)
        self._socket = NftSocket(namespace)
        self._told = told
        self._watches: dict[str, NftWatch] = {}

    async def load(self, table: str, script: str) -> None:
        """A change of that table alone, one at a time. Raises what ``Nft.load`` raises."""
        await self.watch()
        with self._watches[table].our_program():
            await self._nft.load(script)

    async def items(self, listing: str) -> list[dict[str, Any]] | None:
        return await self._nft.items(listing)

    async def watch(self) -> None:
        """Raises ``Refused`` where this process may not, or the kernel has no nftables."""
        for family, name in _TABLES:
            if name in self._watches:
                continue
            try:
                watch = await NftWatch.begin(self._socket, (family, name), functools.partial(self._told, name))
            except Refused as refused:
                raise (not_permitted() if refused.code == "NotPermitted" else refused) from refused
            self._watches[name] = watch

    def close(self) -> None:
        """The tables stay."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        self._socket.close()
