"""The fake firewall is as the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from carmel.network.firewall import Connection
from carmel.resources.firewallpolicy import Action, Direction
from tests.fakes.firewall import FakeFirewall
from tests.fakes.firewall_contract import CONTRACT, PORT, Subject


class Fake:
    def __init__(self) -> None:
        self.firewall = FakeFirewall()

    def passes(self, direction: Direction, connection: Connection) -> bool:
        return self.firewall.connect(PORT.key, direction, connection).action is Action.ALLOW


@pytest.mark.parametrize("clause", CONTRACT)
async def test_contract(clause: Callable[[Subject], Awaitable[None]]) -> None:
    await clause(Fake())
