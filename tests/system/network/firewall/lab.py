"""A bridge with ports in a guest: each port leads to a network namespace that stands for a VM."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from carmel.network.firewall import FirewallDataPlane, NftFirewall
from carmel.network.firewall.nft_tables import NftTables
from carmel.run import Command, ProgramFailed, Result
from carmel.storage.build.payload import DEBIAN_PYTHON
from tests.contract.connections import Site, addresses_of
from tests.system.build.guest import Guest, booted
from tests.system.network.firewall.image import firewall_bundle

_READY = r"carmel micro: ready nonce="


class GuestRunner:
    """Runs programs in the guest, by its agent."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._one_at_a_time = asyncio.Lock()

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        assert on_line is None
        words = {
            "path": str(command.argv[0]),
            "arg": [str(one) for one in command.argv[1:]],
            "capture-output": True,
            **({} if command.stdin is None else {"input-data": base64.b64encode(command.stdin).decode()}),
        }
        pid = (await self._ask("guest-exec", **words))["pid"]
        async with asyncio.timeout(command.limits.seconds):
            ended: dict[str, Any] = {"exited": False}
            while not ended["exited"]:
                ended = await self._ask("guest-exec-status", pid=pid)
        out, err = (base64.b64decode(ended.get(name, "")) for name in ("out-data", "err-data"))
        result = Result(ended.get("exitcode", -ended.get("signal", 1)), out, err)
        if check and result.status != 0:
            raise ProgramFailed(command, result)
        return result

    async def _ask(self, question: str, **words: Any) -> Any:
        """An agent has one who asks."""
        async with self._one_at_a_time:
            return await self._guest.agent(question, 20, **words)


# What the kernel answers is there when a send returns, and the next part of a list when one was read.
_EXCHANGE = """
import socket, sys
kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
kernel.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)
for option in (10, 11):
    kernel.setsockopt(270, option, 1)
kernel.bind((0, 0))
kernel.send(sys.stdin.buffer.read())
kernel.setblocking(False)
try:
    while True:
        sys.stdout.buffer.write(kernel.recv(1 << 18))
except BlockingIOError:
    pass
"""


class GuestTables(NftTables):
    """The guest's kernel is asked, by a program in the guest."""

    def __init__(self, runner: GuestRunner) -> None:
        super().__init__()
        self._runner = runner

    async def _exchange(self, sent: bytes) -> bytes:
        python = f"/usr/bin/python{DEBIAN_PYTHON}"
        return (await self._runner.run(Command([python, "-ISEc", _EXCHANGE], stdin=sent))).stdout


class Lab(Site):
    """In the guest; its switch is a Linux bridge."""

    def __init__(self, runner: GuestRunner, firewall: FirewallDataPlane) -> None:
        super().__init__(firewall)
        self.runner = runner

    async def sh(self, script: str, *, check: bool = True) -> Result:
        return await self.runner.run(Command(["sh", "-c", script]), check=check)

    async def logged(self) -> str:
        return (await self.sh("dmesg")).text

    async def plug(self, name: str, *, known: bool = True) -> None:
        four, six = addresses_of(name)
        await self.sh(f"""set -e
            [ -e /sys/class/net/br0 ] || {{ /opt/ip link add br0 type bridge; /opt/ip link set br0 up; }}
            /opt/ip netns add {name}
            /opt/ip link add cmp{name} type veth peer name eth0 netns {name}
            /opt/ip link set cmp{name} master br0 up
            /opt/ip -n {name} link set lo up
            /opt/ip -n {name} link set eth0 up
            /opt/ip -n {name} addr add {four}/24 dev eth0
            /opt/ip -n {name} addr add {six}/64 dev eth0 nodad
        """)
        if known:
            self.know(name)

    async def unplug_all(self) -> None:
        """As it was at first."""
        await self.sh("""killall nc 2>/dev/null
            for name in $(/opt/ip netns list | cut -d' ' -f1); do /opt/ip netns del $name; done
            /opt/ip link del br0 2>/dev/null
            rm -f /tmp/said /tmp/to* /tmp/from*
            dmesg -c >/dev/null""")
        self.bindings.clear()
        await self.firewall.remove()


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    bundle = await firewall_bundle()
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        words: list[str | Path] = ["-kernel", bundle.kernel, "-initrd", bundle.initrd, "-append", bundle.command_line]
        async with booted(Path(folder), words) as guest:
            await guest.expect(_READY, 90)
            runner = GuestRunner(guest)
            firewall = NftFirewall(GuestTables(runner))
            try:
                yield Lab(runner, firewall)
            finally:
                firewall.close()
