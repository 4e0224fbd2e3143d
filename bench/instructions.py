"""How many instructions emulated machines execute: their guests', their own, and busy waiting (``instructions.c``).

They are counted, rather than the emulation's CPU time, since a CPU that is woken finds TLB and translated code of the
emulation cold, which a real one has not; since registers of emulated devices are code of its threads, too; and since
counting is exact. Not all instructions take the same time: what enters and leaves a guest, or waits for memory, takes
longer than its number says.

Waiting for a lock is counted apart. Emulated CPUs are more than this machine has, and one that has a lock and is not
running lets the others wait for a time that a real machine's do not: most of what a host executed, when offload had
left it little else, was that.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.system.lab.machine import LabMachine

_QEMU = "qemu-system-aarch64"
_SOURCE = Path(__file__).with_suffix(".c")
_HEAD, _CPU, _CPUS = struct.Struct("<12Q32x"), struct.Struct("<3Q40x"), 64
"""``struct shared`` of the plugin, and the counts of a CPU in it."""
_SIZE = _HEAD.size + _CPUS * _CPU.size
# A VM is started with a name; a program that asks what QEMU can do has none. The process stays the same by exec, and
# the counts are called like it.
_STARTER = """#!/bin/sh
case " $* " in
*" -name "*) truncate -s {size} {folder}/$$; chmod 666 {folder}/$$
    exec {qemu} "$@" -plugin {folder}/instructions.so,counts={folder}/$$ ;;
*) exec {qemu} "$@" ;;
esac
"""
_WAITS = ("queued_spin_lock_slowpath", "osq_lock", "mutex_spin_on_owner", "rwsem_spin_on_owner")
"""Linux's functions that do nothing but wait (kernel/locking): four at most."""
_KERNEL = """
echo 0 >/proc/sys/kernel/kptr_restrict
sort /proc/kallsyms | grep -A 1 -E ' (_stext|_etext|__guest_enter|{waits})$'
"""


class Counts(NamedTuple):
    """Millions of instructions since the machine's start."""

    own: float
    guests: float
    waits: float


@contextmanager
def counting() -> Iterator[dict[str, str]]:
    """The environment of a daemon whose emulated machines are counted.

    ``RuntimeError`` without a C compiler or QEMU.
    """
    qemu, compiler = shutil.which(_QEMU), shutil.which("cc")
    if qemu is None or compiler is None:
        raise RuntimeError(f"{_QEMU} and cc are needed: apt install qemu-system-arm gcc libc6-dev")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        # QEMU, and so the starter, runs as a user of its own.
        folder.chmod(0o1777)
        words = (compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "instructions.so", _SOURCE)
        subprocess.run(words, check=True)
        programs = folder / "bin"
        programs.mkdir()
        starter = programs / _QEMU
        starter.write_text(_STARTER.format(folder=folder, qemu=qemu, size=_SIZE))
        starter.chmod(0o755)
        yield {"PATH": f"{programs}:{os.environ['PATH']}"}


@dataclass(frozen=True, slots=True)
class Counter:
    """Of one machine."""

    file: Path

    @classmethod
    def of(cls, machine: LabMachine) -> Counter:
        """``RuntimeError`` unless its daemon has the environment of ``counting``."""
        uid = machine.outer.get("vm", machine.name)["metadata"]["uid"]
        for pid in machine.outer.qemu_pids():
            words = Path(f"/proc/{pid}/cmdline").read_text()
            found = re.search(r",counts=([^\0]+)", words)
            if uid in words and found is not None:
                return cls(Path(found[1]))
        raise RuntimeError(f"the instructions of {machine.name} are not counted")

    def read(self) -> Counts:
        cpus = zip(*_CPU.iter_unpack(self.file.read_bytes()[_HEAD.size :]), strict=True)
        return Counts(*(sum(of) / 1e6 for of in cpus))

    def tell_kernel(self, machine: LabMachine) -> None:
        """From now on what its guests do, and waiting, is counted apart. Guests are entered in one place (Linux's
        arch/arm64/kvm/hyp/entry.S, __guest_enter)."""
        said = machine.shell(_KERNEL.format(waits="|".join(_WAITS)))
        kernel = int(_symbol(said, "_stext")[0], 16), int(_symbol(said, "_etext")[0], 16)
        functions = [[int(at, 16) for at in _symbol(said, name)] for name in ("__guest_enter", *_WAITS)]
        with self.file.open("r+b") as file:
            file.write(_HEAD.pack(*kernel, *itertools.chain(*functions)))


def _symbol(said: str, name: str) -> tuple[str, str]:
    """Where it is, and where the next one is, which is its end. ``RuntimeError`` if there is none."""
    found = re.search(rf"(\w+) \w {name}\n(\w+)", said)
    if found is None:
        raise RuntimeError(f"the kernel has no {name}: {said}")
    return found[1], found[2]
