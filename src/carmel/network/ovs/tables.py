"""The way of a frame through the flow tables, and what the registers hold on it.

::

    CLASSIFY   which port it comes from, which segment (a network's VLAN) it is in; the VLAN tag comes off
    GUARD      what a port's VM may send as itself (SENDER6: the IPv6 source); the rest goes to DROPPED and is counted
    LEARN      where senders are that nobody told of (uplinks, ports without guard)
    FROM*      the firewall, for the port that it comes from
    SWITCH     whom it is for; LEARNED, FLOOD (each of many)
    TO*        the firewall, for each port that it goes to
    OUTPUT     the VLAN tag comes on again, limits, mirrors

FROM and TO are the firewall's, with what they share: SWAP, PROFILE, CHAIN, SETS, RULES. The others are the data
plane's. Neither writes the other's tables. What no flow matches is dropped, in each table: a switch that lost its flows
lets nothing through.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum


class Table(IntEnum):
    CLASSIFY = 0
    GUARD = 1
    DROPPED = 2
    SENDER6 = 3
    LEARN = 4
    FROM = 10
    FROM_BASICS = 11
    FROM_TRACKED = 12
    FROM_JUDGE = 13
    FROM_VERDICT = 14
    SWITCH = 30
    LEARNED = 31
    WHERE = 32
    FLOOD = 33
    FLOOD_EACH = 34
    TO = 40
    TO_BASICS = 41
    TO_TRACKED = 42
    TO_JUDGE = 43
    TO_VERDICT = 44
    OUTPUT = 50
    SWAP = 60
    PROFILE = 61
    CHAIN = 62
    SETS_SOURCE = 63
    SETS_TARGET = 64
    RULES = 65
    NETWORK_STAMP = 250
    FIREWALL_STAMP = 251


NETWORK_TABLES = (
    Table.CLASSIFY, Table.GUARD, Table.DROPPED, Table.SENDER6, Table.LEARN, Table.SWITCH, Table.LEARNED, Table.WHERE,
    Table.FLOOD, Table.FLOOD_EACH, Table.OUTPUT, Table.NETWORK_STAMP,
)  # fmt: skip
FIREWALL_TABLES = tuple(table for table in Table if table not in NETWORK_TABLES)

SOURCE, TARGET = "xreg0", "xreg1"
"""The port that it comes from and the one that it goes to, by ``port_id``; 0: not a VM's."""
SEGMENT = "reg4"
STEP = "reg5"
"""Of the firewall: which profile, policy or part of one is asked."""
ZONE = "reg6"
"""Of connection tracking: one a port, so that connections of one have nothing to do with those of another."""
SET = "reg7"
DECISION = "reg8"
"""0: none yet. 1: allowed. 2: denied."""
OUT = "reg9"
"""The number of the port that it goes to (OpenFlow's)."""
ANSWER = "reg10"
"""1: it answers a connection, and is judged with source and target exchanged."""
MEMBER = "reg11"
"""1: the address is in the set that was asked."""
MEMBERSHIPS = 12
"""The first of four registers with a bit for each set of a policy's part."""

_FIELDS = {SOURCE: "OXM_OF_PKT_REG0[]", TARGET: "OXM_OF_PKT_REG1[]"}


def load(register: str, value: int) -> str:
    field = _FIELDS.get(register) or f"NXM_NX_{register.upper()}[]"
    return f"load:0x{value:x}->{field}"


def to(table: Table) -> str:
    """Go on there."""
    return f"resubmit(,{table.value})"


def port_id(interface: str) -> int:
    """64 bits that stand for a port, wherever and whenever it is plugged: who makes rules need not ask the switch."""
    return int.from_bytes(hashlib.sha256(interface.encode()).digest()[:8], "big") or 1
