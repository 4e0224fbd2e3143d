"""What every SmartNIC is to its host's link, the fake one and a real ``carmeld --role smartnic``.

A test class inherits it and has a fixture ``nic``: a ``NicUnderTest`` that shows ``pf0vf0`` and ``pf0vf1``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from carmel.apiserver.pki import authority, client
from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import CarmelError, Conflict, NotFound, Refused, Unavailable
from carmel.resources.smartnic import FunctionKind, Trust
from carmel.smartnic.credentials import has_expired
from carmel.smartnic.kinds import NAMESPACES, NETWORKS, POLICIES, PORTS
from carmel.smartnic.link import Link, NicView
from carmel.smartnic.mirror import HostObjects, compare, wanted_on
from carmel.smartnic.syncing import make

LONG_AGO = timedelta(days=-9000)
A_MONTH = timedelta(days=30)


class NicUnderTest(Protocol):
    async def endpoint(self, lasts: timedelta = A_MONTH) -> HttpsEndpoint:
        """By a new invitation: an earlier one counts no more."""
        ...

    async def make_port(self, name: str, owner: str) -> None:
        """In ``default``, on a network that is there."""
        ...

    async def trust(self, level: Trust) -> None: ...

    async def stop(self) -> None:
        """Its daemon."""
        ...

    async def start(self) -> None: ...


class Seen:
    """A link whose changes can be waited for."""

    def __init__(self, endpoint: HttpsEndpoint) -> None:
        self._changed = asyncio.Event()
        self.link = Link("dpu", endpoint, self._changed.set)

    async def until(self, holds: Callable[[NicView], bool]) -> NicView:
        async with asyncio.timeout(40):
            while not holds(self.link.view):
                self._changed.clear()
                await self._changed.wait()
        return self.link.view

    async def error(self) -> CarmelError:
        view = await self.until(lambda view: view.error is not None and not view.connecting)
        assert view.error is not None
        return view.error


@contextlib.asynccontextmanager
async def linked(endpoint: HttpsEndpoint) -> AsyncIterator[Seen]:
    seen = Seen(endpoint)
    try:
        yield seen
    finally:
        await seen.link.close()


class NicContract:
    async def test_it_says_what_it_is_and_each_change_at_once(self, nic: NicUnderTest) -> None:
        await nic.make_port("web-eth0", "uid-web")
        async with linked(await nic.endpoint()) as seen:
            view = await seen.until(lambda view: view.reached and ("default", "web-eth0") in view.ports)
            assert view.facts is not None
            assert view.facts.serial
            assert view.facts.trust is Trust.RESTRICTED
            net = [one.id for one in view.facts.functions if one.kind is FunctionKind.NET]
            assert net == ["pf0vf0", "pf0vf1"]
            assert view.ports["default", "web-eth0"].owner == "uid-web"
            await nic.make_port("db-eth0", "uid-db")
            await seen.until(lambda view: ("default", "db-eth0") in view.ports)

    async def test_a_function_is_plugged_and_pulled_out(self, nic: NicUnderTest) -> None:
        await nic.make_port("web-eth0", "uid-web")
        async with linked(await nic.endpoint()) as seen:
            await seen.link.bind("default", "web-eth0", "pf0vf1")
            view = await seen.until(lambda view: any(one.ready for one in view.ports.values()))
            port = view.ports["default", "web-eth0"]
            assert (port.bound, port.plugged, port.mac) == ("pf0vf1", "pf0vf1", "52:54:00:ca:01:01")
            # Once more is no harm.
            await seen.link.bind("default", "web-eth0", "pf0vf1")
            await seen.link.bind("default", "web-eth0", None)
            view = await seen.until(lambda view: not any(one.ready for one in view.ports.values()))
            assert view.ports["default", "web-eth0"].bound is None

    async def test_what_the_nic_refuses_is_told(self, nic: NicUnderTest) -> None:
        await nic.make_port("web-eth0", "uid-web")
        await nic.make_port("db-eth0", "uid-db")
        async with linked(await nic.endpoint()) as seen:
            with pytest.raises(NotFound) as missing:
                await seen.link.bind("default", "other", "pf0vf0")
            assert (missing.value.code, missing.value.hint) == (
                "NoPortOnNIC",
                "its administrator makes it: carmel smartnic sync dpu",
            )
            await seen.link.bind("default", "web-eth0", "pf0vf0")
            with pytest.raises(Conflict) as taken:
                await seen.link.bind("default", "db-eth0", "pf0vf0")
            assert taken.value.code == "FunctionInUse"
            with pytest.raises(Refused) as unknown:
                await seen.link.bind("default", "db-eth0", "pf0vf99")
            assert unknown.value.code == "NoSuchFunction"

    async def test_trust_decides_what_the_host_may(self, nic: NicUnderTest) -> None:
        difference = compare(wanted_on("dpu", "server-1", _wanted()), dict.fromkeys(_KINDS, ()), "server-1")
        async with linked(await nic.endpoint()) as seen:
            view = await seen.until(lambda view: view.reached)
            assert not view.mirrored
            assert "firewallpolicies" not in view.objects
            with pytest.raises(Refused) as refused:
                await seen.link.ask(lambda asked: make(asked, difference))
            assert refused.value.code == "NotTrustedByNIC"
            await nic.trust(Trust.FULL)
            view = await seen.until(lambda view: view.mirrored)
            assert ("", "default") in view.objects["namespaces"]
            await seen.link.ask(lambda asked: make(asked, difference))
            await seen.until(lambda view: ("default", "new-eth0") in view.ports)
            await seen.until(lambda view: ("default", "shut") in view.objects["firewallpolicies"])
            # A peer that is elsewhere is known, and is no port that anything can be plugged into.
            view = await seen.until(lambda view: ("default", "far-eth0") in view.objects["ports"])
            assert view.objects["ports"]["default", "far-eth0"]["spec"]["addresses"] == ["10.9.0.9"]
            assert ("default", "far-eth0") not in view.ports
            with pytest.raises(Refused):
                await seen.link.bind("default", "far-eth0", "pf0vf0")
            # It is as it is to be: nothing more is wanted.
            there = {kind: seen.link.view.objects[kind.plural].values() for kind in _KINDS}
            assert compare(wanted_on("dpu", "server-1", _wanted()), there, "server-1").changes == ()
            await nic.trust(Trust.RESTRICTED)
            await seen.until(lambda view: not view.mirrored)

    async def test_one_that_is_away_is_found_again(self, nic: NicUnderTest) -> None:
        async with linked(await nic.endpoint()) as seen:
            await seen.until(lambda view: view.reached)
            await nic.stop()
            view = await seen.until(lambda view: not view.reached)
            assert view.error is not None
            assert view.error.code == "NICUnreachable"
            # What was known stays known: what runs goes on running.
            assert view.facts is not None
            with pytest.raises(Unavailable):
                await seen.link.bind("default", "web-eth0", "pf0vf0")
            await nic.start()
            await seen.until(lambda view: view.reached)

    async def test_an_expired_certificate_of_the_host_is_told_as_that(self, nic: NicUnderTest) -> None:
        endpoint = await nic.endpoint(LONG_AGO)
        assert has_expired(endpoint)
        async with linked(endpoint) as seen:
            error = await seen.error()
        assert error.code == "HostCertificateExpired"
        assert "invite" in (error.hint or "")

    async def test_a_host_that_it_does_not_know_any_more(self, nic: NicUnderTest) -> None:
        earlier = await nic.endpoint()
        assert not has_expired(earlier)
        await nic.endpoint()
        async with linked(earlier) as seen:
            error = await seen.error()
        assert error.code == "HostNotKnown"

    async def test_another_machine_is_not_trusted(self, nic: NicUnderTest, tmp_path: Path) -> None:
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        pair = client(stranger, authority(stranger), "server-1")
        here = await nic.endpoint()
        there = HttpsEndpoint(
            here.host,
            here.port,
            ca=pair["ca.crt"],
            certificate=pair["tls.crt"],
            key=pair["tls.key"],
            server_name=here.server_name,
        )
        async with linked(there) as seen:
            error = await seen.error()
        assert error.code == "NICNotTrusted"


_KINDS = (NAMESPACES, NETWORKS, POLICIES, PORTS)


def _wanted() -> HostObjects:
    """A port on a network of its own, and a policy with a peer that the host switches."""
    spec = {"provider": "bridge", "bridge": {"uplinks": ["p9"]}, "dataPlane": "SmartNIC"}
    port = {
        "networkRef": {"name": "new"},
        "vmRef": {"name": "new"},
        "nic": "eth0",
        "owner": "uid-new",
        "mac": "52:54:00:00:00:09",
    }
    peer = {
        "metadata": {"name": "far-eth0", "namespace": "default", "labels": {"app": "far"}},
        "spec": {**port, "networkRef": {"name": "own"}, "owner": "uid-far", "mac": "52:54:00:00:00:0a"},
        "status": {"dataPlane": "Host", "addresses": ["10.9.0.9"]},
    }
    rule = {"peers": [{"vmSelector": {"matchLabels": {"app": "far"}}}]}
    policy = {"vmSelector": {"matchLabels": {"app": "new"}}, "ingress": [rule]}
    return HostObjects(
        networks=[{"metadata": {"name": "new"}, "spec": spec}],
        ports=[{"metadata": {"name": "new-eth0", "namespace": "default"}, "spec": port}, peer],
        policies=[{"metadata": {"name": "shut", "namespace": "default"}, "spec": policy}],
        namespaces=[{"metadata": {"name": "default"}}],
        smart_nics=[{"metadata": {"name": "dpu"}}],
    )
