"""The source guard's script: what changes, changes in one transaction; what does not, not at all."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from carmel.network.dataplane import PortPlan
from carmel.network.host.guard import dropped_packets, guard_script, loaded_chains
from carmel.network.host.learning import learned

_ONE = PortPlan("vm-1", "eth0", "lan", "52:54:00:00:00:01", addresses=(IPv4Address("10.0.0.1"), IPv6Address("fd00::1")))
_TWO = PortPlan("vm-2", "eth0", "lan", "52:54:00:00:00:02")


def _chain(script: str, port: PortPlan) -> str:
    [element] = [line for line in script.splitlines() if line.startswith("add element") and port.interface in line]
    return element.split("jump ")[1].split()[0]


def _table(*chains: tuple[str, str]) -> list[dict[str, Any]]:
    elements = [[name, {"jump": {"target": chain}}] for name, chain in chains]
    return [
        {"chain": {"name": "prerouting"}},
        {"rule": {"chain": "prerouting"}},
        {"map": {"name": "ports", "elem": elements}},
        *({"counter": {"table": "carmel-guard", "name": name, "packets": 7}} for name, _ in chains),
    ]


def test_what_is_loaded_is_read_back_and_needs_nothing() -> None:
    script = guard_script([_ONE, _TWO], None)
    loaded = loaded_chains(_table(*((port.interface, _chain(script, port)) for port in (_ONE, _TWO))))
    assert guard_script([_ONE, _TWO], loaded) == ""


def test_a_change_swaps_one_port_and_keeps_its_counter() -> None:
    script = guard_script([_ONE, _TWO], None)
    loaded = {port.interface: _chain(script, port) for port in (_ONE, _TWO)}
    changed = guard_script([replace(_ONE, addresses=(IPv4Address("10.0.0.9"),)), _TWO], loaded)
    assert _TWO.interface not in changed
    assert "counter bridge" not in changed
    assert f"delete chain bridge carmel-guard {loaded[_ONE.interface]}" in changed
    assert "10.0.0.9" in changed


def test_a_port_that_goes_takes_all_of_it_along() -> None:
    loaded = {_ONE.interface: f"{_ONE.interface}-0", _TWO.interface: _chain(guard_script([_TWO], None), _TWO)}
    assert guard_script([replace(_ONE, source_guard=False), _TWO], loaded).splitlines() == [
        f"delete element bridge carmel-guard ports {{ {_ONE.interface} : jump {_ONE.interface}-0 }}",
        f"flush chain bridge carmel-guard {_ONE.interface}-0",
        f"delete chain bridge carmel-guard {_ONE.interface}-0",
        f"delete counter bridge carmel-guard {_ONE.interface}",
    ]


def test_sets_come_and_go_with_the_chain_that_fills_them() -> None:
    learning = replace(_ONE, addresses=())
    made = guard_script([learning], None)
    sets = [line.split()[4] for line in made.splitlines() if line.startswith("add set")]
    assert sets == [f"{_ONE.interface}-4", f"{_ONE.interface}-6"]
    loaded = {_ONE.interface: _chain(made, learning)}
    assert guard_script([learning], loaded) == ""
    # Another address book of the same port: the sets stay, and what is in them.
    moved = guard_script([replace(learning, mac="52:54:00:00:00:09")], loaded)
    assert " set bridge" not in moved
    for script in (guard_script([_ONE], loaded), guard_script([], loaded)):
        assert [line for line in script.splitlines() if line.startswith("delete set")] == [
            f"delete set bridge carmel-guard {name}" for name in sets
        ]
    back = guard_script([learning], {_ONE.interface: _chain(guard_script([_ONE], None), _ONE)})
    assert back.count("add set") == 2


def test_what_was_learned_is_read() -> None:
    elements = [{"elem": {"val": "10.0.0.7", "timeout": 3600, "expires": 3599}}]
    items: list[dict[str, Any]] = [
        {"set": {"table": "carmel-guard", "name": f"{_TWO.interface}-4", "elem": elements}},
        {"set": {"table": "carmel-guard", "name": f"{_TWO.interface}-6", "elem": [{"elem": {"val": "fd00::7"}}]}},
        {"set": {"table": "carmel-guard", "name": f"{_ONE.interface}-4"}},
        {"metainfo": {}},
    ]
    assert learned(items) == {
        _TWO.interface: {IPv6Address("fd00::7")} | {IPv4Address("10.0.0.7")},
        _ONE.interface: set(),
    }
    assert learned(None) == {}


def test_what_other_tables_have_is_left_out() -> None:
    """As nft 1.0.6 lists it, whichever table it was asked for: here a policy's peers, by VM and by block."""
    blocks = [{"prefix": {"addr": "10.0.0.0", "len": 8}}]
    items: list[dict[str, Any]] = [
        {"set": {"table": "carmel-firewall", "name": "vms-0a1b-4", "elem": ["10.0.0.7"]}},
        {"set": {"table": "carmel-firewall", "name": "blocks-2c3d-4", "elem": blocks}},
        {"counter": {"table": "carmel-firewall", "name": _ONE.interface, "packets": 7}},
        {"counter": {"table": "carmel-guard", "name": _TWO.interface, "packets": 3}},
    ]
    assert learned(items) == {}
    assert dropped_packets(items) == {_TWO.interface: 3}


def test_a_table_that_somebody_emptied_is_made_anew() -> None:
    assert loaded_chains(None) is None
    assert loaded_chains([{"chain": {"name": "prerouting"}}]) is None
    assert loaded_chains([one for one in _table() if "rule" not in one]) is None
    assert loaded_chains(_table()) == {}


def test_drops_are_counted_by_port() -> None:
    assert dropped_packets(_table((_ONE.interface, "x"))) == {_ONE.interface: 7}
    assert dropped_packets(None) == {}
