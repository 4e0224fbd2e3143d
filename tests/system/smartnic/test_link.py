"""The host's link, by the contract that the fake NIC keeps, with a real ``carmeld --role smartnic`` behind a relay."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from carmel.apiserver.pki import authority, client
from carmel.client.endpoint import HttpsEndpoint
from carmel.client.objects import dig
from carmel.resources.smartnic import Trust
from carmel.smartnic.relay import bind
from tests.fakes.nic_contract import A_MONTH, NicContract, NicUnderTest
from tests.system.smartnic.ask import NIC
from tests.system.smartnic.conftest import require_programs
from tests.system.smartnic.nic import Nic, mac, port, running_nic


class NicBehindRelay:
    """Ports are numbered as they come, as VMs are in ``Nic``."""

    def __init__(self, nic: Nic, listens_at: int) -> None:
        self._nic = nic
        self._listens_at = listens_at
        self._made = 0

    async def endpoint(self, lasts: timedelta = A_MONTH) -> HttpsEndpoint:
        pki = self._nic.paths.pki
        keys = client(pki, authority(pki), "server-1", lasts)
        return HttpsEndpoint(
            "127.0.0.1",
            self._listens_at,
            ca=keys["ca.crt"],
            certificate=keys["tls.crt"],
            key=keys["tls.key"],
            server_name=NIC,
        )

    async def make_port(self, name: str, owner: str) -> None:
        await asyncio.to_thread(self._make_port, name, owner)

    def _make_port(self, name: str, owner: str) -> None:
        number, self._made = self._made, self._made + 1
        made = port(number, owner=owner, mac=mac(number + 16))
        self._nic.create("port", {**made, "metadata": {"name": name}})

    async def trust(self, level: Trust) -> None:
        await asyncio.to_thread(self._trust, level.value)

    def _trust(self, level: str) -> None:
        name = self._nic.own_name()
        self._nic.patch("smartnic", name, {"spec": {"trust": level}}, None)
        self._nic.wait_for("smartnic", name, lambda one: dig(one, "status", "trust") == level, namespace=None)

    async def stop(self) -> None:
        await asyncio.to_thread(self._nic.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._nic.start)


@pytest.fixture
def nic() -> Iterator[NicUnderTest]:
    """In place of the one without a relay."""
    require_programs()
    with running_nic() as running, contextlib.ExitStack() as stack:
        running.make_network()
        listener = stack.enter_context(bind("127.0.0.1", None, None))
        words = [*running.host.into, sys.executable, "-m", "tests.system.smartnic.carry", str(listener.fileno())]
        carrier = subprocess.Popen(words, pass_fds=[listener.fileno()], env=running.environment())
        stack.callback(carrier.wait)
        stack.callback(carrier.terminate)
        yield NicBehindRelay(running, listener.getsockname()[1])


class TestRealNic(NicContract):
    pass
