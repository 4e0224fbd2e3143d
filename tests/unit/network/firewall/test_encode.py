"""What the kernel is told, byte by byte as nft(8) 1.0.6 tells it (strace -e sendmsg), and what it tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.network.firewall import nft_keys
from carmel.network.firewall.model import Count
from carmel.network.firewall.nft_attributes import BRIDGE, Message, batch, nested, number, replies, text
from carmel.network.firewall.nft_counters import counted_elements, counted_rule
from carmel.network.firewall.nft_encode import encode
from carmel.network.firewall.nft_rules import (
    BOTH_PORTS,
    Counted,
    Counter,
    Field,
    Is,
    Limit,
    Log,
    Part,
    Rule,
    SetMark,
    Statement,
    Verdict,
)
from carmel.network.firewall.nft_state import (
    AddChain,
    AddMap,
    AddRule,
    AddSet,
    Command,
    ElementKey,
    Hook,
    Interval,
    MapElements,
    SetElements,
)

# Bytes are those of a machine that begins with the lowest.
pytestmark = pytest.mark.skipif(nft_keys.MACHINE != "little", reason="recorded on a little-endian machine")

TABLE = "0600010074000000"


def body(command: Command) -> str:
    (message,), _ = encode([command], "t")
    assert message.body.hex().startswith(TABLE)
    return message.body.hex()[len(TABLE) :]


def test_chains_and_sets() -> None:
    assert body(AddChain("pre", Hook(0, -100))) == (
        "0800030070726500" "0b00070066696c74657200000800050000000001" "14000480" "0800010000000000" "08000200ffffff9c"
    )  # fmt: skip
    assert body(AddSet("ports", "ifname")) == (
        "0a000200706f727473000000" "0800030000000000" "0800040000000029" "0800050000000010" "08000a0000000001"
        "0a000d000004010000000000"
    )  # fmt: skip
    counted = body(AddMap("m", ("ipv4_addr", "inet_proto", "inet_service"), counted=True))
    assert counted.startswith(
        "060002006d000000" "0800030000000008" "080004000000730d" "080005000000000c" "08000600ffffff00"
        "0800070000000000"
    )  # fmt: skip
    assert counted.endswith("140011800c000100636f756e7465720004000280")


def test_elements() -> None:
    name = "0a000200706f727473000000"
    assert body(SetElements("ports", [nft_keys.interface_key("cmp0")])) == (
        name + "20000380" "1c000180" "18000180" "14000100" "636d7030000000000000000000000000"
    )  # fmt: skip
    entries: dict[ElementKey, str] = {(0x0A010200, 6, 80): "c", (0x0A010300, 6, 80): "drop"}
    assert body(MapElements("m", ("ipv4_addr", "inet_proto", "inet_service"), entries)) == (
        "060002006d000000" "5c000380"
        "30000180" "14000180" "10000100" "0a0102000600000000500000" "18000280" "14000280" "08000100fffffffc"
        "0600020063000000"
        "28000180" "14000180" "10000100" "0a0103000600000000500000" "10000280" "0c000280" "0800010000000000"
    )  # fmt: skip
    ends = body(SetElements("n", [Interval(bytes((10, 0, 0, 0)), bytes((11, 0, 0, 0)))]))
    assert ends.endswith("18000180" "0c000180" "08000100" "00000000" "0800030000000001"
                         "10000180" "0c000180" "08000100" "0a000000" "18000180" "0c000180" "08000100" "0b000000"
                         "0800030000000001")  # fmt: skip


# Of masks nft says that they are masks, which is so if nothing is said.
@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (
            (Is(Part(Field.IN), b"cmp"), Verdict("c2")),
            (
                "24000180090001006d6574610000000014000280080002000000000608000100000000012c00018008000100636d7000"
                "20000280080001000000000108000200000000000c00038007000100636d7000380001800e000100696d6d6564696174"
                "65000000240002800800010000000000180002801400028008000100fffffffc0700020063320000"
            ),
        ),
        (
            (Is(Part(Field.L4PROTO), bytes((17,))), Is(Part(BOTH_PORTS), bytes((0, 68, 0, 67))), Verdict("accept")),
            (
                "24000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d7000"
                "20000280080001000000000108000200000000000c0003800500010011000000340001800c0001007061796c6f616400"
                "2400028008000100000000010800020000000002080003000000000008000400000000042c00018008000100636d7000"
                "20000280080001000000000108000200000000000c0003800800010000440043300001800e000100696d6d6564696174"
                "650000001c0002800800010000000000100002800c0002800800010000000001"
            ),
        ),
        (
            (Limit(10, 20), Log("carmel: ")),
            (
                "440001800a0001006c696d6974000000340002800c000100000000000000000a0c000200000000000000000108000300"
                "000000140800040000000000080005000000000020000180080001006c6f6700140002800d0002006361726d656c3a20"
                "00000000"
            ),
        ),
        (
            (Is(Part(Field.MARK, (0xFFFFFFFC).to_bytes(4, "little")), bytes((20, 0, 0, 0))), Verdict("accept")),
            (
                "2000018007000100637400001400028008000200000000030800010000000001440001800c0001006269747769736500"
                "340002800800010000000001080002000000000108000300000000040c00048008000100fcffffff0c00058008000100"
                "000000002c00018008000100636d700020000280080001000000000108000200000000000c0003800800010014000000"
                "300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000001"
            ),
        ),
        (
            (Is(Part(Field.DIRECTION), b"\1"), Verdict("accept")),
            (
                "20000180070001006374000014000280080002000000000108000100000000012c00018008000100636d700020000280"
                "080001000000000108000200000000000c0003800500010001000000300001800e000100696d6d656469617465000000"
                "1c0002800800010000000000100002800c0002800800010000000001"
            ),
        ),
        (
            (Is(Part(Field.STATE, bytes((8, 0, 0, 0))), bytes(4), negated=True), Verdict("accept")),
            (
                "2000018007000100637400001400028008000200000000000800010000000001440001800c0001006269747769736500"
                "340002800800010000000001080002000000000108000300000000040c00048008000100080000000c00058008000100"
                "000000002c00018008000100636d700020000280080001000000000108000200000000010c0003800800010000000000"
                "300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000001"
            ),
        ),
        (
            (SetMark(0xFFFFFFFF, 1),),
            (
                "2000018007000100637400001400028008000200000000030800010000000001440001800c0001006269747769736500"
                "340002800800010000000001080002000000000108000300000000040c00048008000100feffffff0c00058008000100"
                "010000002000018007000100637400001400028008000200000000030800040000000001"
            ),
        ),
        (
            (SetMark(0, 5),),
            (
                "2c0001800e000100696d6d6564696174650000001800028008000100000000010c000280080001000500000020000180"
                "07000100637400001400028008000200000000030800040000000001"
            ),
        ),
    ],
)
def test_rules(statements: tuple[Statement, ...], told: str) -> None:
    assert body(AddRule("c", Rule(statements))) == "0600020063000000" + nested(4, bytes.fromhex(told)).hex()


def test_a_comment_and_where_a_counter_begins() -> None:
    rule = Rule((Counter(), Verdict("drop")), "hello")
    (message,), _ = encode([AddRule("c", rule, Count(3, 180))], "t")
    assert message.body.endswith(bytes.fromhex("0c0007000006") + b"hello\0")
    assert counted_rule(memoryview(message.body)) == Counted("hello", Count(3, 180), chain="c")
    (message,), _ = encode([AddRule("c", rule)], "t")
    assert counted_rule(memoryview(message.body)) is None


_PARTS = {"ipv4_addr": (1 << 32) - 1, "ipv6_addr": (1 << 128) - 1, "inet_proto": 255, "inet_service": 65535}
keys = st.sampled_from(
    [("ipv4_addr",), ("ipv6_addr",), ("inet_proto",), ("inet_service",), ("inet_proto", "inet_service"),
     ("ipv4_addr", "inet_proto"), ("ipv6_addr", "inet_proto", "inet_service")]
).flatmap(
    lambda types: st.tuples(st.just(types), st.tuples(*(st.integers(0, _PARTS[one]) for one in types)))
)  # fmt: skip


@given(keys, st.sampled_from(["accept", "drop", "allow-in"]), st.integers(1, 1 << 40))
def test_what_is_told_is_read_back(key: tuple[tuple[str, ...], tuple[int, ...]], verdict: str, packets: int) -> None:
    types, value = key
    counted = Count(packets, 60 * packets)
    elements = MapElements("m", types, {value: verdict}, counts={value: counted})
    (message,), _ = encode([elements], "t")
    layout = nft_keys.layout(types)
    assert nft_keys.types_of(layout.type) == types
    found = list(counted_elements(memoryview(message.body), "m", layout))
    assert found == [Counted("m", counted, value, verdict)]


def test_many_elements_are_several_messages() -> None:
    entries: dict[ElementKey, str] = {(number, 6, 80): "allow-in" for number in range(10_000)}
    messages, owners = encode([MapElements("m", ("ipv4_addr", "inet_proto", "inet_service"), entries)], "t")
    assert len(messages) == len(owners) > 1
    # A length has 16 bits.
    assert all(len(one.body) < 1 << 16 for one in messages)


def test_a_batch_has_both_its_ends_and_one_acknowledgement() -> None:
    said = list(replies(batch([Message(0, text(1, "t")), Message(2, text(1, "t") + number(2, 0))])))
    assert [one.kind for one in said] == [16, 10 << 8, 10 << 8 | 2, 17]
    assert [one.sequence for one in said] == [0, 1, 2, 3]
    assert [one.flags & 4 for one in said] == [0, 0, 4, 0]
    assert said[1].body[0] == BRIDGE
