"""A rule as the kernel is told: its statements as expressions, which load registers and compare them.

Names and numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import functools

from carmel.network.firewall.model import Count
from carmel.network.firewall.nft_attributes import attribute, nested, number, text
from carmel.network.firewall.nft_keys import MACHINE
from carmel.network.firewall.nft_rules import (
    Ask,
    Counter,
    Field,
    Is,
    Limit,
    Log,
    Member,
    Part,
    Payload,
    Rule,
    SetMark,
    Source,
    Statement,
    Verdict,
    Within,
)

ACCEPT = 1
_DROP, _JUMP, _GOTO = 0, -3, -4
_EQUAL, _NOT_EQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_VERDICT_REGISTER, _FIRST_REGISTER = 0, 1
"""NFT_REG_VERDICT and NFT_REG_1."""


def _register(word: int) -> int:
    """The register that begins with this word of four bytes. Each fourth has a name of its own (NFT_REG_1 to 4), the
    others are called by their words (NFT_REG32_01 and so on)."""
    return 8 + word if word % 4 else 1 + word // 4


def rule_attributes(rule: Rule, counted: Count | None) -> bytes:
    expressions = (
        counter(1, counted) if counted is not None and isinstance(one, Counter) else _expressions(one)
        for one in rule.statements
    )
    body = nested(4, *expressions)
    if rule.comment is not None:
        comment = rule.comment.encode() + b"\0"
        body += attribute(7, bytes((0, len(comment))) + comment)
    return body


@functools.lru_cache(maxsize=4096)
def _expressions(statement: Statement) -> bytes:
    match statement:
        case Is(part, value, negated):
            return _load(part) + _compare(_NOT_EQUAL if negated else _EQUAL, value)
        case Within(source, low, high):
            return _load(Part(source)) + _compare(_AT_LEAST, low) + _compare(_AT_MOST, high)
        case Member(source, name, negated):
            inverse = number(5, 1) if negated else b""
            return _load(Part(source)) + named(1, "lookup", number(2, _FIRST_REGISTER), text(1, name), inverse)
        case Ask(key, name):
            word, loads = 0, b""
            for part in key:
                loads += _load(part, _register(word))
                word += -(-_size(part.source) // 4)
            to = number(3, _VERDICT_REGISTER)
            return loads + named(1, "lookup", number(2, _FIRST_REGISTER), to, text(1, name))
        case Verdict():
            return named(1, "immediate", number(1, _VERDICT_REGISTER), nested(2, verdict_data(statement)))
        case Counter():
            return named(1, "counter")
        case Limit(a_second, burst):
            rate = number(1, a_second, 8) + number(2, 1, 8) + number(3, burst) + number(4, 0) + number(5, 0)
            return named(1, "limit", rate)
        case Log(prefix):
            return named(1, "log", text(2, prefix))
        case SetMark(keep, bits):
            # A mark is a number of the machine's, in its byte order. The kernel flips bits: those that are to be set
            # must not be set before.
            old, new = (keep & ~bits).to_bytes(4, MACHINE), bits.to_bytes(4, MACHINE)
            if keep:
                value = _load(Part(Field.MARK)) + _mask(old, new, _FIRST_REGISTER)
            else:
                value = named(1, "immediate", number(1, _FIRST_REGISTER), nested(2, attribute(1, new)))
            return value + named(1, "ct", number(2, Field.MARK.value[1]), number(4, _FIRST_REGISTER))


def named(kind: int, name: str, *parts: bytes) -> bytes:
    return nested(kind, text(1, name), nested(2, *parts))


def counter(kind: int, counted: Count) -> bytes:
    return named(kind, "counter", number(1, counted.bytes, 8), number(2, counted.packets, 8))


def verdict_data(verdict: Verdict) -> bytes:
    code = {"accept": ACCEPT, "drop": _DROP}.get(verdict.target)
    if code is not None:
        return nested(2, number(1, code))
    way = (_JUMP if verdict.jump else _GOTO).to_bytes(4, signed=True)
    return nested(2, attribute(1, way), text(2, verdict.target))


def _size(source: Source) -> int:
    return source.size if isinstance(source, Payload) else int(source.value[2])


def _load(part: Part, register: int = _FIRST_REGISTER) -> bytes:
    if isinstance(part.source, Payload):
        header, offset, size = part.source
        where = number(1, register) + number(2, header.value) + number(3, offset) + number(4, size)
        loaded = named(1, "payload", where)
    else:
        name, key, _ = part.source.value
        loaded = named(1, name, number(2, key), number(1, register))
    return loaded if part.mask is None else loaded + _mask(part.mask, bytes(len(part.mask)), register)


def _mask(keep: bytes, flip: bytes, register: int) -> bytes:
    masks = nested(4, attribute(1, keep)), nested(5, attribute(1, flip))
    return named(1, "bitwise", number(1, register), number(2, register), number(3, len(keep)), *masks)


def _compare(operator: int, value: bytes) -> bytes:
    return named(1, "cmp", number(1, _FIRST_REGISTER), number(2, operator), nested(3, attribute(1, value)))
