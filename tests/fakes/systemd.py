"""A system manager that behaves, as far as scopes go: called by ``busctl``, it answers first and acts later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from carmel.hypervisor.pinning.scope import scope_command
from carmel.run import Command, ProgramFailed, Result

_LATER_SECONDS = 0.02


class FakeSystemd:
    """A ``Runner``. ``scopes`` lie in ``MOUNT/system.slice``, which the test made; ``refuses`` is what it then says."""

    def __init__(self, mount: Path) -> None:
        self.slice = mount / "system.slice"
        self.refuses: str | None = None
        self.deaf = False
        """Answers, and does nothing."""
        self.pids: dict[int, str] = {}

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        words = [str(word) for word in command.argv]
        assert words[:2] == [str(word) for word in scope_command("x", "x", [1]).argv[:2]]
        if self.refuses is not None:
            raise ProgramFailed(command, Result(1, b"", self.refuses.encode()))
        if not self.deaf:
            act = self._start if "StartTransientUnit" in words else self._change
            asyncio.get_running_loop().call_later(_LATER_SECONDS, act, words)
        return Result(0, b"", b"")

    def _start(self, words: Sequence[str]) -> None:
        unit = words[words.index("fail") - 1]
        (self.slice / unit).mkdir()
        self._set(unit, words)
        at = words.index("PIDs")
        for pid in words[at + 3 : at + 3 + int(words[at + 2])]:
            (self.slice / unit / "cgroup.procs").write_text(pid)
            self.pids[int(pid)] = f"/system.slice/{unit}"

    def _change(self, words: Sequence[str]) -> None:
        self._set(words[words.index("true") - 1], words)

    def _set(self, unit: str, words: Sequence[str]) -> None:
        for name, file in (("AllowedCPUs", "cpuset.cpus"), ("AllowedMemoryNodes", "cpuset.mems")):
            at = words.index(name)
            mask = [int(byte) for byte in words[at + 3 : at + 3 + int(words[at + 2])]]
            numbers = [8 * place + bit for place, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1]
            (self.slice / unit / file).write_text(",".join(map(str, numbers)))
