"""A bridge with ports in a guest: each port leads to a network namespace that stands for a VM."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from carmel.network.firewall import NftFirewall, PolicyRef, PortBinding, PortKey, assemble, compile_policy
from carmel.network.firewall.nft_tables import NftTables
from carmel.resources.firewallpolicy import FirewallPolicySpec
from carmel.run import Command, ProgramFailed, Result
from carmel.storage.build.payload import DEBIAN_PYTHON
from tests.system.build.guest import Guest, booted
from tests.system.network.firewall.image import firewall_bundle

_READY = r"carmel micro: ready nonce="
NAMESPACE = "default"


class GuestRunner:
    """Runs programs in the guest, by its agent."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

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
        pid = (await self._guest.agent("guest-exec", 20, **words))["pid"]
        async with asyncio.timeout(command.limits.seconds):
            ended: dict[str, Any] = {"exited": False}
            while not ended["exited"]:
                ended = await self._guest.agent("guest-exec-status", 20, pid=pid)
        out, err = (base64.b64decode(ended.get(name, "")) for name in ("out-data", "err-data"))
        result = Result(ended.get("exitcode", -ended.get("signal", 1)), out, err)
        if check and result.status != 0:
            raise ProgramFailed(command, result)
        return result


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


class Lab:
    """Ports are named by a letter: ``a`` has the address 10.0.0.1 and fd00::1, ``b`` 10.0.0.2 and fd00::2."""

    def __init__(self, runner: GuestRunner) -> None:
        self.runner = runner
        self.firewall = NftFirewall(GuestTables(runner))
        self.bindings: list[PortBinding] = []

    async def sh(self, script: str, *, check: bool = True) -> Result:
        return await self.runner.run(Command(["sh", "-c", script]), check=check)

    async def plug(self, name: str, *, known: bool = True) -> None:
        """Make the VM ``name`` and plug it into the bridge; ``known``: to the firewall too, from its next load on."""
        four, six = _addresses(name)
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

    def know(self, name: str) -> None:
        addresses = tuple(ipaddress.ip_address(one) for one in _addresses(name))
        self.bindings.append(PortBinding(PortKey(NAMESPACE, name), name, {"vm": name}, addresses, f"cmp{name}"))

    async def unplug_all(self) -> None:
        """As it was at first."""
        await self.sh("""killall nc 2>/dev/null
            for name in $(/opt/ip netns list | cut -d' ' -f1); do /opt/ip netns del $name; done
            /opt/ip link del br0 2>/dev/null
            rm -f /tmp/said /tmp/to* /tmp/from*
            dmesg -c >/dev/null""")
        self.bindings.clear()
        await self.firewall.remove()

    async def load(self, **policies: FirewallPolicySpec) -> None:
        compiled = [compile_policy(PolicyRef(NAMESPACE, name), spec) for name, spec in policies.items()]
        await self.firewall.load(assemble(compiled, self.bindings, {NAMESPACE: {}}))

    async def serve(self, name: str, port: int) -> None:
        """An echo server."""
        await self.sh(f"/opt/ip netns exec {name} nc -ll -p {port} -e /bin/cat >/dev/null 2>&1 </dev/null &")
        await self.listening(name, port)

    async def listening(self, name: str, port: int) -> None:
        seen = f"/opt/ip netns exec {name} netstat -ltn | grep -q ':{port} '"
        await self.sh(f"for i in $(seq 100); do {seen} && exit 0; sleep 0.05; done; exit 1")

    async def connects(self, name: str, address: str, port: int) -> bool:
        script = f"echo hello | timeout 3 /opt/ip netns exec {name} nc -w 2 {address} {port} | grep -q hello"
        return (await self.sh(script, check=False)).status == 0

    async def pings(self, name: str, address: str) -> bool:
        script = f"/opt/ip netns exec {name} ping -c 1 -W 1 {address}"
        return (await self.sh(script, check=False)).status == 0


def _addresses(name: str) -> tuple[str, str]:
    number = ord(name) - ord("a") + 1
    return f"10.0.0.{number}", f"fd00::{number}"


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    bundle = await firewall_bundle()
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        words: list[str | Path] = ["-kernel", bundle.kernel, "-initrd", bundle.initrd, "-append", bundle.command_line]
        async with booted(Path(folder), words) as guest:
            await guest.expect(_READY, 90)
            here = Lab(GuestRunner(guest))
            try:
                yield here
            finally:
                here.firewall.close()
