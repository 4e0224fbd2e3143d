"""A machine with NVMe drives in a folder, and the programs that make, check and mount file systems on them.

It is a ``Runner`` for ``storage.drive.Drives``; a drive's bytes are those of a file, mounts are what /proc says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from carmel.run import Command, ProgramFailed, Result
from carmel.storage.drive import LABEL
from tests.unit.hardware.machines import Tree

SIZE = 8 << 20


class FakeDrives:
    """``calls`` are the programs that were run. ``busy`` places cannot be unmounted; ``broken`` devices not mended."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.calls: list[str] = []
        self.busy: set[str] = set()
        self.broken: set[str] = set()
        self.die_in: str | None = None
        self._mounts: dict[str, str] = {}
        self._numbers: dict[str, str] = {}
        self._tell_mounts()

    def add(self, name: str, serial: str, namespace_id: int = 1, content: bytes = b"") -> Path:
        """A drive ``name`` (``nvme0``) with one namespace; what stands in its first bytes is ``content``."""
        space = f"{name}n1"
        self._numbers[space] = f"259:{len(self._numbers)}"
        for path, text in {
            f"sys/class/nvme/{name}/transport": "pcie",
            f"sys/class/nvme/{name}/serial": serial,
            f"sys/class/nvme/{name}/{space}/nsid": f"{namespace_id}",
            f"sys/class/block/{space}/nsid": f"{namespace_id}",
            f"sys/class/block/{space}/size": f"{SIZE // 512}",
            f"sys/class/block/{space}/dev": self._numbers[space],
            f"sys/class/block/{space}/queue/io_timeout": "30000",
        }.items():
            self.tree.write(path, f"{text}\n")
        self.tree.write(f"dev/{space}", content)
        device = self.tree.root / "dev" / space
        os.truncate(device, SIZE)
        return device

    def remove(self, name: str) -> None:
        self.tree.remove(f"sys/class/nvme/{name}")

    def mounted_at(self, device: Path) -> str | None:
        return self._mounts.get(device.name)

    def mount_elsewhere(self, device: Path, place: str) -> None:
        self._mounts[device.name] = place
        self._tell_mounts()

    def power_cut(self) -> None:
        """Nothing is mounted afterwards."""
        self._mounts.clear()
        self._tell_mounts()

    # -- Runner -------------------------------------------------------------------------------------------------
    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.calls.append(command.program)
        words = [str(word) for word in command.argv[1:]]
        if command.program == self.die_in:
            raise KeyboardInterrupt
        status = {"mke2fs": self._make, "e2fsck": self._check, "mount": self._mount, "umount": self._unmount}[
            command.program
        ](words)
        result = Result(status, b"", b"" if status == 0 else b"target is busy.")
        if check and status != 0:
            raise ProgramFailed(command, result)
        return result

    def _make(self, words: list[str]) -> int:
        assert words[:-1] == ["-q", "-t", "ext4", "-L", LABEL, "-m", "0"]
        block = bytearray(1024)
        block[56:58] = b"\x53\xef"
        block[120 : 120 + len(LABEL)] = LABEL.encode()
        with Path(words[-1]).open("r+b") as file:
            file.seek(1024)
            file.write(block)
        return 0

    def _check(self, words: list[str]) -> int:
        return 4 if Path(words[-1]).name in self.broken else 1

    def _mount(self, words: list[str]) -> int:
        device, place = Path(words[-2]), words[-1]
        assert words[:2] == ["-t", "ext4"]
        self._mounts[device.name] = place
        self._tell_mounts()
        return 0

    def _unmount(self, words: list[str]) -> int:
        if words[-1] in self.busy:
            return 32
        self._mounts = {device: place for device, place in self._mounts.items() if place != words[-1]}
        self._tell_mounts()
        return 0

    def _tell_mounts(self) -> None:
        lines = ["22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"]
        lines += [
            f"{number} 22 {self._numbers[device]} / {place} rw - ext4 /dev/{device} rw\n"
            for number, (device, place) in enumerate(self._mounts.items(), 30)
        ]
        self.tree.write("proc/1/mountinfo", "".join(lines))
