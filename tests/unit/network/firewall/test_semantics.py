"""The compiled rules decide what the text of FirewallPolicySpec says, for any policies and connections."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.network.firewall import Connection, Why, decide
from carmel.resources.firewallpolicy import Action, Direction
from tests.unit.network.firewall.reference import judge
from tests.unit.network.firewall.worlds import NAMESPACES, World, connections, worlds


@settings(max_examples=150, deadline=None)
@given(worlds, st.lists(connections, min_size=1, max_size=20))
def test_compiled_rules_decide_as_the_reference(world: World, asked: list[Connection]) -> None:
    ruleset = world.ruleset()
    for port in world.ports:
        for direction in Direction:
            for connection in asked:
                found = decide(ruleset, port.key, direction, connection)
                wanted = judge(world.policies, world.ports, NAMESPACES, port, direction, connection)
                assert (found.action, found.rule) == wanted
                assert (found.why is Why.OPEN) == (wanted == (Action.ALLOW, None))
