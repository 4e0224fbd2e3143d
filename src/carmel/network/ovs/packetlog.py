"""The log of rules with ``log: true``: Open vSwitch hands the packets that they decide to whoever asks for them.

As on a Linux bridge: of an allowed connection the first packet, of a denied one every packet, and not too many of them
(``nft_chains``). What comes faster than ``MOST_A_SECOND``, all rules together, does not leave the datapath.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from carmel.errors import CarmelError
from carmel.network.firewall.model import LOGS_A_SECOND, RuleRef, log_prefix
from carmel.network.ovs.rules import DENIED
from carmel.network.ovs.tables import ANSWER, DECISION
from carmel.resources.firewallpolicy import Action

MOST_A_SECOND = 200
"""Of all rules, by a meter."""
_AT_ONCE = 2.0 * LOGS_A_SECOND
_AGAIN_SECONDS = 1.0
"""ovs-vswitchd is started anew, or nobody made the bridge yet."""
_HEAD = re.compile(r"NXT_PACKET_IN2 .*?cookie=0x([0-9a-f]+) .*?\(via action\)")
_REGISTER = re.compile(r"\b(reg\d+)=0x([0-9a-f]+)")

_log = logging.getLogger(__name__)


class Decided(NamedTuple):
    """``source`` and ``target``: the ports, by ``port_id``; 0: not a VM's. ``answer``: it answers the connection whose
    source and target ``packet`` (ovs-fields(7)) has, and went the other way."""

    cookie: int
    action: Action
    source: int
    target: int
    answer: bool
    packet: str


@dataclass
class Reader:
    """Of what ``ovs-ofctl monitor`` writes: a line about each packet, one with what the rule handed over beside it if
    there is something, and the packet."""

    _head: tuple[int, Mapping[str, int]] | None = None

    def line(self, text: str) -> Decided | None:
        found = _HEAD.match(text)
        if found is not None:
            self._head = int(found[1], 16), {name: int(value, 16) for name, value in _REGISTER.findall(text)}
            return None
        if self._head is None or text.startswith(" ") or not text:
            return None
        (cookie, registers), self._head = self._head, None
        action = Action.DENY if registers.get(DECISION) == DENIED else Action.ALLOW
        source, target = (registers.get(one, 0) << 32 | registers.get(two, 0) for one, two in _HALVES)
        return Decided(cookie, action, source, target, bool(registers.get(ANSWER)), text.strip())


_HALVES = (("reg0", "reg1"), ("reg2", "reg3"))
"""``SOURCE`` and ``TARGET`` as ovs-ofctl writes them."""


@dataclass
class Pace:
    """``LOGS_A_SECOND`` of a rule, and twice as many at once."""

    _left: dict[RuleRef, tuple[float, float]] = field(default_factory=dict)

    def allows(self, rule: RuleRef, now: float) -> bool:
        left, before = self._left.get(rule, (_AT_ONCE, now))
        left = min(_AT_ONCE, left + (now - before) * LOGS_A_SECOND)
        allowed = left >= 1
        self._left[rule] = (left - 1 if allowed else left), now
        return allowed

    def keep(self, rules: Collection[RuleRef]) -> None:
        """Forget others."""
        self._left = {rule: left for rule, left in self._left.items() if rule in rules}


def sentence(decided: Decided, rule: RuleRef, ports: Mapping[int, str]) -> str:
    """As the kernel's log has it for a Linux bridge, but for the packet, which is in Open vSwitch's words."""
    here, there = ports.get(decided.source, ""), ports.get(decided.target, "")
    answer = " answer to" if decided.answer else ""
    return f"{log_prefix(decided.action, rule)}: IN={here} OUT={there}{answer} {decided.packet}"


class Packets(Protocol):
    async def packets(self, on_line: Callable[[str], None]) -> None:
        """What Open vSwitch hands over, until it ends. Raises ``CarmelError``."""
        ...


class PacketLog:
    """Asks Open vSwitch for packets while there are rules that log them."""

    def __init__(
        self, openflow: Packets, write: Callable[[str], None] = _log.info, again_seconds: float = _AGAIN_SECONDS
    ) -> None:
        self._openflow = openflow
        self._again_seconds = again_seconds
        self._write = write
        self._rules: Mapping[int, RuleRef] = {}
        self._ports: Mapping[int, str] = {}
        self._pace = Pace()
        self._reader = Reader()
        self._task: asyncio.Task[None] | None = None

    async def know(self, rules: Mapping[int, RuleRef], ports: Mapping[int, str]) -> None:
        """``rules``, by cookie, are those whose packets come; ``ports``: the interfaces, by ``port_id``."""
        self._rules, self._ports = rules, ports
        self._pace.keep(set(rules.values()))
        if not rules:
            await self.aclose()
        elif self._task is None:
            self._task = asyncio.create_task(self._listen(), name="packets that rules log")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        said = ""
        while True:
            self._reader = Reader()
            try:
                await self._openflow.packets(self._line)
                why = "Open vSwitch has ended the connection"
            except CarmelError as error:
                why = str(error)
            if why != said:
                _log.warning("what rules log is not heard of for a moment: %s", why)
            said = why
            await asyncio.sleep(self._again_seconds)

    def _line(self, text: str) -> None:
        decided = self._reader.line(text)
        # Or it is of a rule that was there a moment ago.
        rule = None if decided is None else self._rules.get(decided.cookie)
        if decided is not None and rule is not None and self._pace.allows(rule, time.monotonic()):
            self._write(sentence(decided, rule, self._ports))
