"""What a rule is made of: statements, as values. The words are nft(8)'s; what the kernel is told is in nft_encode."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from carmel.network.firewall.model import Count


class Field(Enum):
    """Of a packet or its connection: the name of the kernel's expression, its number there, and the size in bytes.

    Numbers: enum nft_meta_keys and nft_ct_keys in linux/netfilter/nf_tables.h.
    """

    PROTOCOL = ("meta", 1, 2)
    IN = ("meta", 6, 16)
    OUT = ("meta", 7, 16)
    L4PROTO = ("meta", 16, 1)
    STATE = ("ct", 0, 4)
    DIRECTION = ("ct", 1, 1)
    MARK = ("ct", 3, 4)


class Header(Enum):
    """Where a part of a packet begins (enum nft_payload_bases)."""

    NETWORK = 1
    TRANSPORT = 2


class Payload(NamedTuple):
    """``size`` bytes of a packet."""

    header: Header
    offset: int
    size: int


Source = Field | Payload

SOURCE = {4: Payload(Header.NETWORK, 12, 4), 6: Payload(Header.NETWORK, 8, 16)}
DESTINATION = {4: Payload(Header.NETWORK, 16, 4), 6: Payload(Header.NETWORK, 24, 16)}
SOURCE_PORT, DESTINATION_PORT = Payload(Header.TRANSPORT, 0, 2), Payload(Header.TRANSPORT, 2, 2)
BOTH_PORTS = Payload(Header.TRANSPORT, 0, 4)
ICMP_TYPE = Payload(Header.TRANSPORT, 0, 1)


@dataclass(frozen=True, slots=True)
class Part:
    """Of a key: the source, of which only the bits of ``mask`` count."""

    source: Source
    mask: bytes | None = None


@dataclass(frozen=True, slots=True)
class Is:
    """``value`` may be shorter than the source: then it is what the source begins with."""

    part: Part
    value: bytes
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Within:
    source: Source
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """Whether ``source`` is in the set ``name``."""

    source: Source
    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Do what the map ``name`` says for this key; go on if it says nothing."""

    key: tuple[Part, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """``accept``, ``drop``, or a ``target``: a chain to go to, or to ``jump`` to and come back from."""

    target: str
    jump: bool = False


@dataclass(frozen=True, slots=True)
class Counter:
    pass


@dataclass(frozen=True, slots=True)
class Limit:
    """Goes on at most ``a_second`` times a second, after ``burst`` at once."""

    a_second: int
    burst: int


@dataclass(frozen=True, slots=True)
class Log:
    prefix: str


@dataclass(frozen=True, slots=True)
class SetMark:
    """The connection's mark becomes what it is in the bits of ``keep``, with ``bits`` besides."""

    keep: int
    bits: int


Statement = Is | Within | Member | Ask | Verdict | Counter | Limit | Log | SetMark


@dataclass(frozen=True, slots=True)
class Rule:
    """``comment`` is how its counter is known again."""

    statements: tuple[Statement, ...]
    comment: str | None = None


class Counted(NamedTuple):
    """What an entry of the map ``name`` counted (its ``key`` and ``verdict``), or, without them, the rule of the chain
    ``chain`` with the comment ``name``."""

    name: str
    decided: Count
    key: tuple[int, ...] = ()
    verdict: str = ""
    chain: str = ""
