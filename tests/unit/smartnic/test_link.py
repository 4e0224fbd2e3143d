"""The host's link to a NIC, over real mutual TLS: what it knows, how it finds back, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from carmel.apiserver.pki import authority, client
from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import CarmelError, Conflict, NotFound, Refused, Unavailable
from carmel.resources.smartnic import Trust
from carmel.smartnic.credentials import endpoint_of, has_expired
from carmel.smartnic.link import Link, NicView
from tests.fakes.nic import LONG_AGO, FakeNic, running_nic


class Seen:
    """A link whose changes can be waited for."""

    def __init__(self, endpoint: HttpsEndpoint) -> None:
        self._changed = asyncio.Event()
        self.link = Link("dpu", endpoint, self._changed.set)

    async def until(self, holds: Callable[[NicView], bool]) -> NicView:
        async with asyncio.timeout(30):
            while not holds(self.link.view):
                self._changed.clear()
                await self._changed.wait()
        return self.link.view

    async def error(self) -> CarmelError:
        view = await self.until(lambda view: view.error is not None and view.error.code != "Connecting")
        assert view.error is not None
        return view.error


@contextlib.asynccontextmanager
async def linked(endpoint: HttpsEndpoint) -> AsyncIterator[Seen]:
    seen = Seen(endpoint)
    try:
        yield seen
    finally:
        await seen.link.close()


@pytest.fixture
async def nic(tmp_path: Path) -> AsyncIterator[FakeNic]:
    async with running_nic(tmp_path) as running:
        yield running


async def test_it_knows_what_the_nic_says_and_each_change_at_once(nic: FakeNic) -> None:
    await nic.make_port("web-eth0")
    async with linked(nic.endpoint()) as seen:
        view = await seen.until(lambda view: view.reached and ("default", "web-eth0") in view.ports)
        assert view.facts is not None
        assert (view.facts.serial, view.facts.trust) == ("MT-1", Trust.RESTRICTED)
        assert [one.id for one in view.facts.functions] == ["pf0vf0", "pf0vf1"]
        await nic.make_port("db-eth0")
        await seen.until(lambda view: ("default", "db-eth0") in view.ports)
        await nic.tell(serial="MT-2")
        await seen.until(lambda view: view.facts is not None and view.facts.serial == "MT-2")


async def test_a_function_is_plugged_and_pulled_out(nic: FakeNic) -> None:
    await nic.make_port("web-eth0")
    async with linked(nic.endpoint()) as seen:
        await seen.link.bind("default", "web-eth0", "pf0vf1")
        port = (await seen.until(lambda view: any(one.ready for one in view.ports.values()))).ports[
            "default", "web-eth0"
        ]
        assert (port.bound, port.plugged, port.mac) == ("pf0vf1", "pf0vf1", "52:54:00:ca:01:01")
        await seen.link.bind("default", "web-eth0", None)
        await seen.until(lambda view: not any(one.ready for one in view.ports.values()))


async def test_what_the_nic_refuses_is_told(nic: FakeNic) -> None:
    await nic.make_port("web-eth0")
    await nic.make_port("db-eth0")
    async with linked(nic.endpoint()) as seen:
        with pytest.raises(NotFound) as missing:
            await seen.link.bind("default", "other", "pf0vf0")
        assert (missing.value.code, missing.value.hint) == (
            "NoPortOnNIC",
            "its administrator makes it: carmel smartnic sync dpu",
        )
        await seen.link.bind("default", "web-eth0", "pf0vf0")
        with pytest.raises(Conflict):
            await seen.link.bind("default", "db-eth0", "pf0vf0")


async def test_trust_decides_what_is_seen(nic: FakeNic) -> None:
    async with linked(nic.endpoint()) as seen:
        view = await seen.until(lambda view: view.reached)
        assert not view.mirrored
        assert "firewallpolicies" not in view.objects
        await nic.trust("Full")
        view = await seen.until(lambda view: view.mirrored)
        assert ("", "default") in view.objects["namespaces"]
        await nic.trust("Restricted")
        await seen.until(lambda view: not view.mirrored)


async def test_a_nic_that_is_away_is_found_again(nic: FakeNic) -> None:
    async with linked(nic.endpoint()) as seen:
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
        await nic.tell(bootID="boot-2")
        await seen.until(lambda view: view.reached and view.facts is not None and view.facts.boot_id == "boot-2")


async def test_an_expired_certificate_of_the_host_is_told_as_that(nic: FakeNic) -> None:
    endpoint = nic.endpoint(nic.invite(lasts=LONG_AGO))
    assert has_expired(endpoint)
    async with linked(endpoint) as seen:
        error = await seen.error()
    assert error.code == "HostCertificateExpired"
    assert "invite" in (error.hint or "")


async def test_a_host_that_the_nic_does_not_know(nic: FakeNic) -> None:
    earlier = nic.endpoint(nic.invite())
    assert not has_expired(earlier)
    nic.invite()
    async with linked(earlier) as seen:
        error = await seen.error()
    assert error.code == "HostNotKnown"


async def test_another_machine_is_not_trusted(nic: FakeNic, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    pair = client(stranger, authority(stranger), "server-1")
    here = nic.endpoint()
    there = HttpsEndpoint(here.host, here.port, ca=pair["ca.crt"], certificate=pair["tls.crt"], key=pair["tls.key"])
    async with linked(there) as seen:
        error = await seen.error()
    assert isinstance(error, Refused)
    assert error.code == "NICNotTrusted"


async def test_it_closes_at_once_whatever_it_waits_for(nic: FakeNic) -> None:
    seen = Seen(nic.endpoint())
    await seen.until(lambda view: view.reached)
    # Its watches wait for ever, and a request is on its way to a port where nobody answers.
    silent = socket.create_server(("127.0.0.1", 0))
    deaf = Seen(HttpsEndpoint("127.0.0.1", silent.getsockname()[1], ca=seen.link.endpoint.ca))
    asking = asyncio.create_task(deaf.link.bind("default", "web-eth0", None))
    await asyncio.sleep(0)
    # Far less than any of its time-outs.
    async with asyncio.timeout(8):
        await asyncio.gather(seen.link.close(), deaf.link.close())
        with pytest.raises(CarmelError):
            await asking
    silent.close()


def test_credentials_that_are_none_say_so() -> None:
    for data, code in (
        (None, "WaitingForSecret"),
        ({"ca.crt": "eA==", "tls.crt": "eA=="}, "WaitingForSecret"),
        ({"ca.crt": "%", "tls.crt": "eA==", "tls.key": "eA=="}, "CredentialsInvalid"),
    ):
        with pytest.raises(Refused) as caught:
            endpoint_of("192.168.100.2:17443", "smartnic-dpu", data)
        assert caught.value.code == code
    six = endpoint_of("[fd00::2]:17443", "s", dict.fromkeys(("ca.crt", "tls.crt", "tls.key"), "eA=="))
    assert (six.host, six.port) == ("fd00::2", 17443)
