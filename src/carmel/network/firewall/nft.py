"""The data plane of a Linux bridge: nftables' bridge family with connection tracking (Linux 5.3, nf_conntrack_bridge).

One call of ``nft`` is one transaction: the kernel takes all of it or nothing, and packets see the rules before it or
those after it. A table is Carmel's by its name; other tables are not touched.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from carmel.errors import Refused, Unavailable
from carmel.network.firewall.bursts import burst
from carmel.network.firewall.compile import Chain, Ruleset
from carmel.network.firewall.model import Count, RuleRef
from carmel.network.firewall.nft_chains import Fragment, fragment_of
from carmel.network.firewall.nft_counters import counts
from carmel.network.firewall.nft_state import FAMILY, TableState, afresh, change
from carmel.network.firewall.nft_table import GENERATIONS, of_generation, table_of
from carmel.network.names import PORT
from carmel.run import Command, Limits, Result, Runner

TABLE = "carmel-firewall"
_LIMITS = Limits(seconds=60, output_bytes=128 * 1024 * 1024)
_NO_TRACKING = (
    "this kernel cannot track connections on a bridge: the module nf_conntrack_bridge (Linux 5.3 and newer) is missing"
)


class NftFirewall:
    """``namespace`` is a network namespace's file (``/run/netns/x``, ``/proc/1/ns/net``); ours if it is absent.

    ``port_prefix`` is how the names of ports' interfaces begin. An interface with such a name gets nothing through
    until a ruleset knows it.
    """

    def __init__(self, runner: Runner, *, namespace: Path | None = None, port_prefix: str = PORT) -> None:
        self._runner = runner
        self._namespace = namespace
        self._prefix = port_prefix
        self._lock = asyncio.Lock()
        # Begins anywhere: what an earlier daemon's connections are marked with must not pass for judged.
        self._generation = secrets.randbelow(GENERATIONS)
        self._ruleset: Ruleset | None = None
        self._loaded: TableState | None = None
        self._fragments: dict[Chain, Fragment] = {}

    async def load(self, ruleset: Ruleset) -> None:
        async with self._lock:
            transaction, state, generation, fragments = await asyncio.to_thread(self._plan, ruleset)
            if transaction is not None:
                # Whether it took effect is not known if this is cancelled or fails: the next load begins afresh.
                self._loaded = None
                await self._apply(transaction)
            self._ruleset, self._loaded, self._generation, self._fragments = ruleset, state, generation, fragments

    @burst()
    def _plan(self, ruleset: Ruleset) -> tuple[bytes | None, TableState, int, dict[Chain, Fragment]]:
        fragments = {chain: self._fragments.get(chain) or fragment_of(chain) for chain in ruleset.chains.values()}
        state = table_of(ruleset, self._generation, self._prefix, fragments.__getitem__)
        if self._loaded is not None and change(TABLE, self._loaded, state) is None:
            return None, state, self._generation, fragments
        generation = (self._generation + 1) % GENERATIONS
        state = of_generation(state, generation)
        wanted = afresh(TABLE, state) if self._loaded is None else change(TABLE, self._loaded, state)
        return orjson.dumps(wanted), state, generation, fragments

    async def _apply(self, transaction: bytes) -> None:
        result = await self._nft(["-f", "-"], transaction)
        if result.status == 0:
            return
        words = result.last_words
        if "Protocol error" in words:
            raise Refused(
                _NO_TRACKING,
                code="NoBridgeTracking",
                hint="use a kernel that has it, such as Debian's, or user networks",
            )
        if "Operation not permitted" in words:
            raise Refused("only root may set the firewall's rules", code="NotPermitted", hint="run carmeld as root")
        raise Unavailable(f"nft refused the firewall's rules: {_first_error(words)}", code="FirewallNotLoaded")

    async def counters(self) -> Mapping[RuleRef, Count]:
        async with self._lock:
            if self._loaded is None:
                return {}
            result = await self._nft(["list", "table", FAMILY, TABLE])
            if result.status != 0:
                # Somebody flushed the rules: the next load puts them back.
                self._loaded = None
                raise Unavailable(
                    f"the firewall's table is gone: {_first_error(result.last_words)}", code="FirewallGone"
                )
            listed = (await asyncio.to_thread(orjson.loads, result.stdout))["nftables"]
            lookups = {name: one for part in self._fragments.values() for name, one in part.lookups.items()}
            return await asyncio.to_thread(counts, listed, lookups)

    async def remove(self) -> None:
        async with self._lock:
            table = {"table": {"family": FAMILY, "name": TABLE}}
            self._loaded = None
            await self._apply(orjson.dumps({"nftables": [{"add": table}, {"delete": table}]}))

    async def _nft(self, words: Sequence[str], stdin: bytes | None = None) -> Result:
        into = [] if self._namespace is None else ["nsenter", f"--net={self._namespace}", "--"]
        argv = [*into, "nft", "--json", "--numeric", *words]
        return await self._runner.run(Command(argv, stdin=stdin, limits=_LIMITS), check=False)


def _first_error(words: str) -> str:
    lines = [line for line in words.splitlines() if "Error" in line]
    return (lines or words.splitlines() or ["it said nothing"])[0].strip()
