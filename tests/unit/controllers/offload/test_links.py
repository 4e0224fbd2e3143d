"""Who is told of what a NIC says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from carmel.client.endpoint import HttpsEndpoint
from carmel.controllers.offload.links import Links
from carmel.errors import Unavailable
from carmel.resources.base import JsonObject
from carmel.smartnic.link import NicLink, NicView
from carmel.smartnic.reading import read_port


class SaidLink:
    """A link whose NIC says what the test says."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.view = NicView()
        self._changed = changed

    def say(self, port: JsonObject, **more: Any) -> None:
        key = ("default", "web-eth0")
        self.view = NicView(ports={key: read_port(port)}, objects={"ports": {key: port}}, **more)
        self._changed()

    async def close(self) -> None:
        pass


def a_port(*, counted: int = 0, generation: int = 1, ready: bool = True, tier: str = "web") -> JsonObject:
    metadata = {"namespace": "default", "name": "web-eth0", "generation": generation, "labels": {"tier": tier}}
    conditions = [{"type": "Ready", "status": str(ready)}]
    counters = {"receivedPackets": counted}
    return {"metadata": metadata, "spec": {}, "status": {"conditions": conditions, "counters": counters}}


@pytest.fixture
async def told() -> tuple[SaidLink, list[str], list[str]]:
    """The link, who is told of all, and who of the gist, once the port is known."""
    made: list[SaidLink] = []

    def make(_name: str, _endpoint: HttpsEndpoint, changed: Callable[[], None]) -> NicLink:
        made.append(SaidLink(changed))
        return cast("NicLink", made[0])

    links, of_all, of_gist = Links(make), list[str](), list[str]()
    links.listen(of_all.append)
    links.listen_for_gist(of_gist.append)
    await links.ensure("dpu", cast("HttpsEndpoint", object()))
    made[0].say(a_port())
    assert (of_all, of_gist) == (["dpu"], ["dpu"])
    return made[0], of_all, of_gist


async def test_what_a_port_counts_is_not_the_gist(told: tuple[SaidLink, list[str], list[str]]) -> None:
    link, of_all, of_gist = told
    link.say(a_port(counted=7))
    link.say(a_port(counted=8))
    assert (len(of_all), len(of_gist)) == (3, 1)


@pytest.mark.parametrize("changed", [{"generation": 2}, {"ready": False}, {"tier": "db"}])
async def test_what_is_wanted_of_it_and_whether_it_is_so_are(
    told: tuple[SaidLink, list[str], list[str]], changed: dict[str, Any]
) -> None:
    link, _, of_gist = told
    link.say(a_port(counted=7, **changed))
    assert len(of_gist) == 2


async def test_a_nic_that_goes_and_comes_is(told: tuple[SaidLink, list[str], list[str]]) -> None:
    link, _, of_gist = told
    link.say(a_port(), error=Unavailable("it is away", code="NICUnreachable"))
    link.say(a_port(), error=Unavailable("it is away", code="NICUnreachable"))
    assert len(of_gist) == 2
    link.say(a_port())
    assert len(of_gist) == 3
