"""The host's link to a NIC, over real mutual TLS: the contract on the fake NIC, and what takes no NIC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import CarmelError, Refused
from carmel.resources.smartnic import Trust
from carmel.smartnic.credentials import endpoint_of
from tests.fakes.nic import FakeNic, running_nic
from tests.fakes.nic_contract import A_MONTH, NicContract, NicUnderTest, Seen, linked


class FakeUnderTest:
    def __init__(self, nic: FakeNic) -> None:
        self.fake = nic

    async def endpoint(self, lasts: timedelta = A_MONTH) -> HttpsEndpoint:
        return self.fake.endpoint(self.fake.invite(lasts))

    async def make_port(self, name: str, owner: str) -> None:
        await self.fake.make_port(name, owner)

    async def trust(self, level: Trust) -> None:
        await self.fake.trust(level.value)

    async def stop(self) -> None:
        await self.fake.stop()

    async def start(self) -> None:
        await self.fake.start()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeNic]:
    async with running_nic(tmp_path) as running:
        yield running


@pytest.fixture
def nic(fake: FakeNic) -> NicUnderTest:
    return FakeUnderTest(fake)


class TestFakeNic(NicContract):
    pass


async def test_what_the_nic_says_of_itself_is_heard(fake: FakeNic) -> None:
    async with linked(fake.endpoint()) as seen:
        await seen.until(lambda view: view.reached)
        await fake.tell(serial="MT-2")
        await seen.until(lambda view: view.facts is not None and view.facts.serial == "MT-2")


async def test_it_closes_at_once_whatever_it_waits_for(fake: FakeNic) -> None:
    seen = Seen(fake.endpoint())
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
