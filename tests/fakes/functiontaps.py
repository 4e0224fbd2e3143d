"""Taps on functions, in memory."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field

from carmel.errors import CarmelError
from carmel.network.dataplane import PortHandles


@dataclass
class FakeTaps:
    """``joined``: by the tap's name, the index of the function's interface. ``refusal``: why it joins none."""

    joined: dict[str, int] = field(default_factory=dict)
    refusal: CarmelError | None = None

    async def join(self, name: str, function: int, alias: str, queues: int, mtu: int) -> PortHandles:
        if self.refusal is not None:
            raise self.refusal
        self.joined = {other: index for other, index in self.joined.items() if index != function}
        self.joined[name] = function
        return PortHandles(tuple(os.open(os.devnull, os.O_RDWR) for _ in range(queues)))

    async def part(self, name: str) -> None:
        self.joined.pop(name, None)

    async def there(self, name: str) -> bool:
        return name in self.joined

    async def keep_only(self, names: Collection[str]) -> None:
        self.joined = {name: index for name, index in self.joined.items() if name in names}
