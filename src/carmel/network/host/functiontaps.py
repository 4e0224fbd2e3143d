"""A SmartNIC's function that stays the host's, joined to a VM's NIC one to one: by a macvtap in mode passthru.

The kernel gives such a macvtap every frame that comes in by the function, and sends by the function what the VM sends,
unchanged (drivers/net/macvlan.c). No bridge, no filter and no address of the host is on the way: who switches is the
NIC. It goes when its function does, also when vfio-pci is to have that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from carmel.network.dataplane import PortHandles
from carmel.network.names import FUNCTION_TAP

if TYPE_CHECKING:
    from carmel.network.host.netlink import Netlink

_CLASS = Path("/sys/class/net")


class FunctionTaps:
    """Macvtaps on functions, by name (``names.function_tap_name``). ``namespace`` as ``Netlink`` has it, which is made
    when it is needed first: it is not there at all on other systems than Linux, and few hosts have a SmartNIC."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._namespace = namespace
        self._made: Netlink | None = None

    async def join(self, name: str, function: int, alias: str, queues: int, mtu: int) -> PortHandles:
        """Join the interface with index ``function`` to descriptors, one a queue, with this MTU. What was made of the
        name, or of the function, before is removed.

        Raises ``Refused`` (``FunctionInUse``, ``MTUNotPossible``, ``KernelLacksFeature``, ``NoTapDevice``,
        ``NotPermitted``) and ``Unavailable``; then nothing is left of it.
        """
        from carmel.network.host import macvtap

        return await self._netlink().open(macvtap.join(name, function, alias, queues, mtu))

    async def part(self, name: str) -> None:
        """Nothing to do is fine. The function is down then, and otherwise as it was."""
        await self._keep(lambda known: known != name)

    async def keep_only(self, names: Collection[str]) -> None:
        """Remove what an earlier daemon made for VMs that ended."""
        if any(one not in names for one in await asyncio.to_thread(_seen)):
            await self._keep(lambda known: known in names)

    async def there(self, name: str) -> bool:
        """In this process' own namespace, where all but tests have them."""
        return await asyncio.to_thread((_CLASS / name).exists)

    async def aclose(self) -> None:
        """What is joined stays."""
        if self._made is not None:
            await self._made.aclose()

    async def _keep(self, wanted: Callable[[str], bool]) -> None:
        from carmel.network.host import macvtap

        await self._netlink().call(macvtap.keep(wanted))

    def _netlink(self) -> Netlink:
        from carmel.network.host.netlink import Netlink

        if self._made is None:
            self._made = Netlink(self._namespace)
        return self._made


def _seen() -> list[str]:
    return [found.name for found in _CLASS.glob(f"{FUNCTION_TAP}*")]
