"""Whatever was changed in whatever order: what is then in the kernel is what a daemon that starts would load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.controllers.firewall_policies import PolicyCache
from carmel.network.firewall import NftFirewall, PolicyRef, PortBinding, PortKey, Ruleset, assemble
from carmel.network.firewall.nft_attributes import BRIDGE
from carmel.resources.firewallpolicy import FIREWALL_POLICY, FirewallPolicySpec
from carmel.store.protocol import Stored
from tests.system.network.firewall.dumped import dumped
from tests.system.network.firewall.wire import UntrackedTables, Wire
from tests.unit.network.firewall.worlds import NAMESPACES, bindings, references, specs


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[Path, Path]]:
    with Wire(["uplink"]) as one, Wire(["uplink"]) as other:
        yield one.namespace, other.namespace


class Place:
    """What there is, as the store has it, and the firewall of a daemon that lives on."""

    def __init__(self, namespace: Path) -> None:
        self.firewall = NftFirewall(UntrackedTables(namespace))
        self._cache = PolicyCache()
        self._policies: dict[PolicyRef, Stored] = {}
        self._ports: dict[PortKey, PortBinding] = {}
        self._version = 0

    def put(self, ref: PolicyRef, spec: FirewallPolicySpec | None) -> None:
        """``None``: it is deleted."""
        self._version += 1
        self._policies.pop(ref, None)
        if spec is not None:
            metadata = {"namespace": ref.namespace, "name": ref.name, "generation": self._version}
            raw = orjson.dumps({"metadata": metadata, "spec": spec.to_json()})
            self._policies[ref] = Stored(FIREWALL_POLICY, *ref, str(ref), str(self._version), raw)

    def plug(self, port: PortBinding) -> None:
        """Or pull it out, if it is there."""
        if self._ports.pop(port.key, None) is None:
            self._ports[port.key] = port

    def ruleset(self, cache: PolicyCache | None = None) -> Ruleset:
        compiled = (cache or self._cache).compiled(self._policies.values())
        return assemble([one.policy for one in compiled.values()], list(self._ports.values()), NAMESPACES)


Step = tuple[PolicyRef, FirewallPolicySpec | None] | PortBinding
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(references, specs), st.tuples(references, specs), st.tuples(references, st.none()), bindings
)


async def _go(places: tuple[Path, Path], done: list[Step]) -> None:
    here, there = places
    place = Place(here)
    try:
        for step in done:
            if isinstance(step, PortBinding):
                place.plug(step)
            else:
                place.put(*step)
            await place.firewall.load(place.ruleset())
        fresh = NftFirewall(UntrackedTables(there))
        try:
            await fresh.load(place.ruleset(PolicyCache()))
        finally:
            fresh.close()
        assert await dumped(here, BRIDGE) == await dumped(there, BRIDGE)
    finally:
        await place.firewall.remove()
        place.firewall.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=2, max_size=12))
def test_steps_lead_where_a_start_does(places: tuple[Path, Path], done: list[Step]) -> None:
    asyncio.run(_go(places, done))
