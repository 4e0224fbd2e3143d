"""nftables for the data plane: whole transactions in, JSON out. Tables are Carmel's by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from carmel.errors import Refused, Unavailable
from carmel.network.host.refusals import not_permitted
from carmel.run import Command, Limits, Runner

_LIMITS = Limits(seconds=30, output_bytes=32 * 1024 * 1024)


class Nft:
    """``namespace`` is a network namespace's file; this process' own if it is absent."""

    def __init__(self, runner: Runner, namespace: Path | None = None) -> None:
        self._runner = runner
        self._into = [] if namespace is None else ["nsenter", f"--net={namespace}", "--"]

    async def load(self, script: str) -> None:
        """All of it or nothing (nft(8), ``-f``)."""
        argv = [*self._into, "nft", "-f", "-"]
        result = await self._runner.run(Command(argv, stdin=script.encode(), limits=_LIMITS), check=False)
        if result.status == 0:
            return
        if "Operation not permitted" in result.last_words:
            raise not_permitted()
        if "Operation not supported" in result.last_words:
            raise Refused(
                "this kernel cannot filter or masquerade as the network needs",
                code="KernelLacksFeature",
                hint="nftables needs its bridge family, and for nat networks nft_chain_nat and nft_masq",
            )
        lines = [line for line in result.last_words.splitlines() if "Error" in line] or [result.last_words]
        raise Unavailable(f"nft refused the network's rules: {lines[0].strip()}", code="FilterNotLoaded")

    async def items(self, listing: str) -> list[dict[str, Any]] | None:
        """What ``list`` commands tell; ``None``: something of it is not there."""
        argv = [*self._into, "nft", "--json", listing]
        try:
            result = await self._runner.run(Command(argv, limits=_LIMITS), check=False)
        except Refused as exc:
            if exc.code == "ProgramMissing":
                return None  # then nobody made a table either
            raise
        if result.status != 0:
            return None
        # An object on a line of its own for each command.
        return [item for line in result.stdout.splitlines() if line for item in orjson.loads(line)["nftables"]]
