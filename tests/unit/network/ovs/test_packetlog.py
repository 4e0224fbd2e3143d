"""Packets that rules log: what ovs-ofctl writes of them, what is told, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from carmel.errors import Unavailable
from carmel.network.firewall import PolicyRef, RuleRef
from carmel.network.firewall.model import LOGS_A_SECOND
from carmel.network.ovs.packetlog import Decided, Pace, PacketLog, Reader, sentence
from carmel.resources.firewallpolicy import Action, Direction

_RULE = RuleRef(PolicyRef("default", "web"), Direction.INGRESS, 2, None)
_COOKIE = 0x100000003
_PACKET = "udp,vlan_tci=0x0000,dl_src=52:54:00:00:00:01,nw_src=10.0.0.3,nw_dst=10.0.0.2,tp_src=9,tp_dst=53 udp_csum:17"
# As ovs-ofctl 3.1.0 writes them.
_HEAD = (
    "NXT_PACKET_IN2 (OF1.4) (xid=0x0): table_id=65 cookie=0x100000003 total_len=43 "
    "reg0=0x1,reg1=0x2,reg2=0x3,reg3=0x4,reg5=0x7,reg8=0x2,reg9=0x3,in_port=1 (via action) data_len=43 (unbuffered)"
)
_WRITTEN = (_HEAD, " userdata=01", _PACKET)
_SOURCE, _TARGET = 0x100000002, 0x300000004


def _read(*lines: str) -> list[Decided]:
    reader = Reader()
    return [decided for line in lines if (decided := reader.line(line)) is not None]


def test_what_open_vswitch_hands_over() -> None:
    decided = Decided(_COOKIE, Action.DENY, _SOURCE, _TARGET, answer=False, packet=_PACKET)
    assert _read(*_WRITTEN, *_WRITTEN) == [decided] * 2
    assert _read(_HEAD, _PACKET) == [decided]
    allowed = _HEAD.replace("reg8=0x2", "reg8=0x1,reg10=0x1")
    assert _read(allowed, _PACKET) == [decided._replace(action=Action.ALLOW, answer=True)]


def test_what_is_no_packet_is_passed_over() -> None:
    assert _read("OFPT_ECHO_REQUEST (OF1.4) (xid=0x0): 0 bytes of payload", _PACKET, "") == []
    # One that a controller would get, of which no rule said so.
    assert _read(_HEAD.replace("(via action)", "(via no_match)"), _PACKET) == []
    # It was ended in the midst of one.
    assert _read(_HEAD, *_WRITTEN) == _read(*_WRITTEN)


def test_a_line_names_policy_rule_and_ports() -> None:
    (decided,) = _read(*_WRITTEN)
    said = sentence(decided, _RULE, {_SOURCE: "cmpc", _TARGET: "cmpb"})
    assert said == f"carmel Deny default/web ingress[2]: IN=cmpc OUT=cmpb {_PACKET}"
    said = sentence(decided._replace(answer=True), _RULE, {_TARGET: "cmpb"})
    assert said == f"carmel Deny default/web ingress[2]: IN= OUT=cmpb answer to {_PACKET}"


def test_a_rule_tells_so_many_and_no_more() -> None:
    pace = Pace()
    other = _RULE._replace(position=3)
    assert sum(pace.allows(_RULE, 7.0) for _ in range(100)) == 2 * LOGS_A_SECOND
    assert pace.allows(other, 7.0)
    assert sum(pace.allows(_RULE, 8.0) for _ in range(100)) == LOGS_A_SECOND
    assert sum(pace.allows(_RULE, 1000.0) for _ in range(100)) == 2 * LOGS_A_SECOND
    pace.keep({other})
    assert pace.allows(_RULE, 1000.0)


class _Packets:
    """Hands ``_WRITTEN`` over to each who asks, and ends then, ``failing`` without."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.failing = False
        self.stays = True
        self.ended = False

    async def packets(self, on_line: Callable[[str], None]) -> None:
        self.asked.set()
        if self.failing:
            raise Unavailable("no such bridge", code="NoBridge")
        for line in _WRITTEN:
            on_line(line)
        try:
            if self.stays:
                await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_nobody_asks_without_rules_that_log() -> None:
    packets, told = _Packets(), list[str]()
    log = PacketLog(packets, told.append)
    await log.know({}, {})
    await asyncio.sleep(0)
    assert not packets.asked.is_set()
    await log.know({_COOKIE: _RULE}, {_SOURCE: "cmpc", _TARGET: "cmpb"})
    await packets.asked.wait()
    assert [line.partition(" udp")[0] for line in told] == ["carmel Deny default/web ingress[2]: IN=cmpc OUT=cmpb"]
    await log.know({}, {})
    assert packets.ended


async def test_packets_of_rules_that_are_gone_are_not_told() -> None:
    packets, told = _Packets(), list[str]()
    log = PacketLog(packets, told.append)
    await log.know({_COOKIE + 1: _RULE}, {})
    await packets.asked.wait()
    await log.aclose()
    assert told == []


async def test_who_hands_over_comes_back() -> None:
    packets, told = _Packets(), list[str]()
    packets.failing = True
    log = PacketLog(packets, told.append, again_seconds=0)
    await log.know({_COOKIE: _RULE}, {})
    await packets.asked.wait()
    packets.failing, packets.stays = False, False
    async with asyncio.timeout(10):
        while len(told) < 2:
            packets.asked.clear()
            await packets.asked.wait()
    await log.aclose()
