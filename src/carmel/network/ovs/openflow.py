"""Flows and meters of one bridge, by ovs-ofctl(8). Each change is one bundle: all of it, or nothing, and no packet sees
a half (OpenFlow 1.4, 6.9).

What the datapath knows by heart is looked at again as soon as flows changed, which takes milliseconds more; counters
have what it did half a second ago.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from carmel.errors import Unavailable
from carmel.network.ovs.flows import Does, FlowCount, Flows, Match, afresh, change, counts
from carmel.network.ovs.tables import Table
from carmel.run import Command, Limits, Result, Runner

_LIMITS = Limits(seconds=60, output_bytes=256 * 1024 * 1024)
_METER = re.compile(r"meter=(\d+) kbps(.*?)\n.*?rate=(\d+)(?: burst_size=(\d+))?", re.DOTALL)
_WANTED_BYTES = 65534
"""As much of each packet is wanted. Who is no controller gets none without saying so (ovs-ofctl(8), monitor)."""

Meters = Mapping[int, tuple[int, int]]
"""By number: kilobits a second, and kilobits that may pass at once."""


class OpenFlow:
    """``folder`` is where Open vSwitch has its sockets (/run/openvswitch)."""

    def __init__(self, runner: Runner, folder: Path, bridge: str) -> None:
        self._runner = runner
        self._env = {"OVS_RUNDIR": str(folder)}
        self._bridge = bridge

    async def bundle(self, lines: Sequence[str]) -> None:
        """Raises ``Unavailable`` (``FlowsNotLoaded``), and nothing is changed."""
        text = "\n".join(lines).encode() + b"\n"
        result = await self._ofctl(["--bundle", "add-flows", self._bridge, "-"], text)
        if result.status != 0:
            raise Unavailable(
                f"Open vSwitch refused flows: {_first_words(result)}", code="FlowsNotLoaded",
                hint="see that ovs-vswitchd runs and is of version 2.13 or newer: ovs-vsctl show",
            )  # fmt: skip

    async def counts(self, table: Table) -> list[FlowCount]:
        result = await self._ofctl(["dump-flows", self._bridge, f"table={table.value}"])
        if result.status != 0:
            raise Unavailable(f"Open vSwitch does not tell its flows: {_first_words(result)}", code="FlowsUnknown")
        return await asyncio.to_thread(lambda: list(counts(result.text)))

    async def forget_connections(self, zone: int) -> None:
        await self._ofctl(["ct-flush-zone", self._bridge, str(zone)])

    async def meters(self) -> Meters:
        result = await self._ofctl(["dump-meters", self._bridge])
        found = _METER.finditer(result.text) if result.status == 0 else ()
        return {int(one[1]): (int(one[3]), int(one[4] or 0)) for one in found}

    async def set_meters(self, wanted: Meters, there: Meters) -> None:
        """Those of ``wanted`` that ``there`` lacks or has otherwise. Raises ``Unavailable``."""
        for number, (rate, burst) in wanted.items():
            if there.get(number) == (rate, burst):
                continue
            text = f"meter={number},kbps,burst,band=type=drop,rate={rate},burst_size={burst}"
            await self._with_meters(["mod-meter" if number in there else "add-meter", self._bridge, text])

    async def limit_packets(self, meter: int, a_second: int) -> None:
        """Make ``meter`` count packets. Raises ``Unavailable``."""
        text = f"meter={meter},pktps,burst,band=type=drop,rate={a_second},burst_size={a_second}"
        if (await self._ofctl(["mod-meter", self._bridge, text])).status != 0:
            await self._with_meters(["add-meter", self._bridge, text])

    async def packets(self, on_line: Callable[[str], None]) -> None:
        """What flows hand over, as ``ovs-ofctl monitor`` writes it, until Open vSwitch ends."""
        words = ["monitor", self._bridge, str(_WANTED_BYTES), "-P", "nxt_packet_in2"]
        await self._runner.run(replace(self._command(words), stays=True), check=False, on_line=on_line)

    async def remove_meters(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self._ofctl(["del-meter", self._bridge, f"meter={number}"])

    async def _with_meters(self, words: Sequence[str]) -> None:
        result = await self._ofctl(words)
        if result.status != 0:
            raise Unavailable(
                f"Open vSwitch has no meters here: {_first_words(result)}", code="NoMeters",
                hint="limits, and rules that log, need Linux 4.18 or newer with the openvswitch module",
            )  # fmt: skip

    async def _ofctl(self, words: Sequence[str], stdin: bytes | None = None) -> Result:
        return await self._runner.run(self._command(words, stdin), check=False)

    def _command(self, words: Sequence[str], stdin: bytes | None = None) -> Command:
        return Command(["ovs-ofctl", "-O", "OpenFlow14", *words], env=self._env, stdin=stdin, limits=_LIMITS)


class LoadedFlows:
    """The flows of some ``tables``, which nobody else writes. A flow in ``stamp``, one of them, says that it was this
    process that loaded them: Open vSwitch loses all flows when it is started anew."""

    def __init__(self, openflow: OpenFlow, tables: Sequence[Table], stamp: Table) -> None:
        self._openflow = openflow
        self._tables = tables
        self._stamp = stamp
        self._secret = secrets.randbits(63) + 1
        self._loaded: Flows | None = None

    async def is_there(self) -> bool:
        if self._loaded is None:
            return False
        return any(one.cookie == self._secret for one in await self._openflow.counts(self._stamp))

    async def put(self, wanted: Flows) -> None:
        """Nothing to change, nothing done."""
        before = self._loaded if await self.is_there() else None
        stamped = {**wanted, Match(self._stamp, 0): Does("drop", self._secret)}
        lines = list(afresh(self._tables, stamped) if before is None else change(before, stamped))
        if not lines:
            return
        # Whether it took effect is not known if this is cancelled or fails: the next one begins afresh.
        self._loaded = None
        await self._openflow.bundle(lines)
        self._loaded = stamped

    def forget(self) -> None:
        self._loaded = None


def _first_words(result: Result) -> str:
    lines = result.last_words.splitlines()
    return lines[0] if lines else "it said nothing"
