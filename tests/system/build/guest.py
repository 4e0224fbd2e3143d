"""A guest under the real QEMU, driven over its serial console, QMP and the guest agent's channel.

Deliberately not the hypervisor room: these tests say whether an image is good, whatever starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

FIRMWARE = Path("/usr/share/AAVMF")
_FLASH_BYTES = 64 * 1024 * 1024


class Guest:
    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.console = ""
        self._folder = folder
        self._seen = 0

    async def expect(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until the console shows ``pattern`` behind what was expected before."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while (match := re.compile(pattern).search(self.console, self._seen)) is None:
                    chunk = await self.process.stdout.read(4096)
                    assert chunk, f"QEMU ended before {pattern!r}: {self.console[-2000:]}"
                    self.console += chunk.decode("utf-8", "replace")
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in {seconds} s: {self.console[-2000:]}") from None
        self._seen = match.end()
        return match

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    async def power_button(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._folder / "qmp")
        try:
            assert "QMP" in json.loads(await reader.readline())
            for command in ("qmp_capabilities", "system_powerdown"):
                writer.write(json.dumps({"execute": command}).encode() + b"\n")
                while "return" not in json.loads(await asyncio.wait_for(reader.readline(), 10)):
                    pass
        finally:
            writer.close()

    async def ended(self, seconds: float) -> int:
        """QEMU's exit status, once the guest has turned itself off."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            rest = await self.process.stdout.read()
            self.console += rest.decode("utf-8", "replace")
            return await self.process.wait()

    async def agent(self, command: str, seconds: float, **arguments: Any) -> Any:
        """The answer of the guest agent, from a fresh connection; asks again until there is an agent."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(TimeoutError, ValueError):
                    return await self._ask(command, arguments)

    async def _ask(self, command: str, arguments: dict[str, Any]) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._folder / "agent")
        try:
            # Answers to questions of an earlier connection may still be on their way: the id tells them apart.
            number = id(writer) % 2**31
            sync = {"execute": "guest-sync", "arguments": {"id": number}}
            writer.write(json.dumps(sync).encode() + b"\n")
            while json.loads(await asyncio.wait_for(reader.readline(), 5)).get("return") != number:
                pass
            writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            return json.loads(await asyncio.wait_for(reader.readline(), 30))["return"]
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def booted(folder: Path, words: Sequence[str | Path], *, memory: str = "256M") -> AsyncIterator[Guest]:
    """A guest that is gone when the block is left. ``folder`` holds its sockets: keep its path short."""
    common = [
        "-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg", "-m", memory,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile=",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={folder / 'agent'},server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "qemu-system-aarch64",
        *common,
        *(str(word) for word in words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Guest(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def firmware(folder: Path) -> list[str]:
    """Arguments for UEFI with variables of its own."""
    words = []
    for name, readonly in (("AAVMF_CODE.fd", "on"), ("AAVMF_VARS.fd", "off")):
        flash = folder / name
        shutil.copy(FIRMWARE / name, flash)
        with flash.open("r+b") as file:
            file.truncate(_FLASH_BYTES)
        words += ["-drive", f"if=pflash,format=raw,readonly={readonly},file={flash}"]
    return words
