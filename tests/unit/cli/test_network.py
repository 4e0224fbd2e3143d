"""``carmel network``: uplinks that were taken over are confirmed, once and in time."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.resources.network import NETWORK
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World

BRIDGE = {"uplinks": ["eth0"], "takeover": True}


def make(world: World, name: str, phase: str | None = None, started: str = "2026-11-23T10:00:00Z") -> None:
    async def work(store: Any) -> None:
        await store.create(NETWORK, {"metadata": {"name": name}, "spec": {"provider": "bridge", "bridge": BRIDGE}})
        if phase is not None:
            taken = {"phase": phase, "startedAt": started, "deadline": started}
            status = {"takeover": taken, "conditions": [_why(phase)]}
            await store.replace(NETWORK, {"metadata": {"name": name}, "status": status}, subresource="status")

    world.do(work)


def _why(phase: str) -> dict[str, str]:
    message = "the uplink eth0 was put back." if phase == "RolledBack" else ""
    return {"type": "Ready", "status": "False", "reason": phase, "message": message}


def test_what_waits_is_confirmed(carmel: Carmel, world: World) -> None:
    make(world, "lan", "Waiting")
    outcome = carmel("network", "confirm", "lan")
    assert (outcome.status, outcome.out, outcome.err) == (0, "lan stays as it is.\n", "")
    again = carmel("network", "confirm", "lan")
    assert (again.status, again.err) == (0, "lan was confirmed before.\n")


def test_a_host_whose_clock_is_ahead_is_answered_in_its_time(carmel: Carmel, world: World) -> None:
    make(world, "ahead", "Waiting", "2999-01-01T00:00:00Z")
    assert carmel("network", "confirm", "ahead").status == 0
    network = carmel("get", "network", "ahead", "-o", "json").json()
    assert network["spec"]["bridge"]["confirmedAt"] == "2999-01-01T00:00:01Z"


@pytest.mark.parametrize(
    ("name", "phase", "words"),
    [
        ("late", "Waiting", "the uplink of the network late was put back"),
        ("gone", "RolledBack", "the uplink eth0 was put back"),
        ("plain", None, "nothing of the network plain waits to be confirmed"),
    ],
)
def test_what_cannot_be_confirmed_says_why(
    carmel: Carmel, world: World, name: str, phase: str | None, words: str
) -> None:
    make(world, name, "Waiting" if phase == "Waiting" else phase)
    outcome = carmel("network", "confirm", name)
    assert outcome.status != 0
    assert words in outcome.err


def test_networks_are_listed(carmel: Carmel) -> None:
    outcome = carmel("network", "list", "-o", "wide")
    assert outcome.status == 0
    assert outcome.out.split()[:4] == ["NAME", "PROVIDER", "VLAN", "READY"]
    assert "default" in outcome.out
