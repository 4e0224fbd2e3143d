"""A lab machine as tests see it: its API from outside, and a shell on its console, which asks the kernel itself.

What is proven of a VM's place is read from /proc by that shell. Carmel's own word is never taken for it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from carmel.client.api import Client
from carmel.client.contexts import choose_context
from carmel.client.objects import JsonObject
from carmel.cpulist import parse_cpu_list
from carmel.errors import CarmelError
from tests.api import Api
from tests.daemon import Daemon
from tests.programs import Program, carmel
from tests.system.lab.shell import run_in_shell

BOOT_SECONDS = 900.0
GUEST_SECONDS = 300.0
"""Two emulations, one in the other, on a machine that may be busy. On an idle one it is a small part of that."""


@dataclass(frozen=True, slots=True)
class MemoryMapping:
    """A line of /proc/PID/numa_maps (numa(7)): pages by node; ``file`` is what is mapped, if anything.

    ``is_stack``: it is the stack of the first thread.
    """

    policy: str
    pages: Mapping[int, int]
    file: str
    is_stack: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A QEMU on the lab machine. ``threads``: name and the CPUs that the kernel lets it run on."""

    pid: int
    threads: tuple[tuple[str, frozenset[int]], ...]
    memory_nodes: frozenset[int]
    devices: frozenset[str]
    mappings: tuple[MemoryMapping, ...]

    @property
    def vcpus(self) -> list[frozenset[int]]:
        """What each vCPU's thread may run on: QEMU calls them ``CPU 0/KVM`` and so on."""
        found = {int(name.split("/")[0][4:]): cpus for name, cpus in self.threads if re.match(r"CPU \d+/KVM", name)}
        return [found[index] for index in sorted(found)]

    @property
    def guest_memory(self) -> list[MemoryMapping]:
        """Only a guest's memory is bound by QEMU."""
        return [mapping for mapping in self.mappings if mapping.policy.startswith("bind")]

    @property
    def nodes(self) -> frozenset[int]:
        """Where the process's own pages are.

        Files are the machine's: who reads them first decides where they lie. And of the first stack, which the kernel
        makes while it starts a program, one page has been seen elsewhere: that one is left out.
        """
        own = [mapping for mapping in self.mappings if not mapping.file]
        stray = {node for mapping in own if mapping.is_stack for node, count in mapping.pages.items() if count == 1}
        home = {node for mapping in own if not mapping.is_stack for node in mapping.pages}
        on_stack = {node for mapping in own if mapping.is_stack for node in mapping.pages}
        return frozenset(home | (on_stack - stray))


class LabMachine(Api):
    """``outer`` runs it as a VM called ``name``; ``cli`` is the user's ``carmel`` on the outer host."""

    patience = GUEST_SECONDS

    def __init__(self, outer: Daemon, cli: Program, name: str, environ: Mapping[str, str]) -> None:
        self.outer = outer
        self.cli = cli
        self.name = name
        self._client = Client(choose_context(name, environ))

    @property
    def client(self) -> Client:
        return self._client

    def last_words(self) -> str:
        return self.shell("tail -n 30 /var/log/carmeld.log")

    def shell(self, script: str, seconds: float = GUEST_SECONDS) -> str:
        """What a script prints, run by root on the lab machine."""
        return run_in_shell(self.outer.client, self.name, script, seconds)

    def guest_shell(self, vm: str, script: str, seconds: float = GUEST_SECONDS) -> str:
        """What a script prints, run by root in a VM on the lab machine."""
        return run_in_shell(self.client, vm, script, seconds)

    def host(self) -> JsonObject:
        return self.get("host", self.name, namespace=None)

    def daemon_pid(self) -> int:
        """Of the carmeld that init runs."""
        return int(self.shell("pidof carmeld"))

    def await_daemon(self, other_than: int) -> None:
        """Until init has started another carmeld and that one answers."""
        deadline = time.monotonic() + self.patience
        while True:
            with contextlib.suppress(CarmelError, ValueError):
                self.client.call("GET", "/readyz")
                if self.daemon_pid() != other_than:
                    return
            assert time.monotonic() < deadline, self.last_words()
            time.sleep(0.5)

    def process(self, vm: JsonObject) -> Process:
        """The QEMU of a VM, found by the VM's uid in its arguments, as the kernel shows it now."""
        uid = vm["metadata"]["uid"]
        script = f"""
for p in $(pidof qemu-system-aarch64); do tr '\\0' ' ' </proc/$p/cmdline | grep -q {uid} && break; done
q=/proc/$p; echo "pid $p"
for t in $q/task/*; do echo "thread $(sed -n 's/^Cpus_allowed_list:.//p' $t/status) $(cat $t/comm)"; done
echo "mems $(sed -n 's/^Mems_allowed_list:.//p' $q/status)"
for f in $q/fd/*; do echo "fd $(readlink $f)"; done
grep -E ' N[0-9]+=' $q/numa_maps | sed 's/^/map /'
"""
        return _read_process(self.shell(script))


def _read_process(text: str) -> Process:
    pid, threads, nodes, devices, mappings = 0, list[tuple[str, frozenset[int]]](), frozenset[int](), set[str](), []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "pid":
                pid = int(rest)
            case "thread":
                cpus, _, name = rest.partition(" ")
                threads.append((name, frozenset(parse_cpu_list(cpus))))
            case "mems":
                nodes = frozenset(parse_cpu_list(rest))
            case "fd":
                devices.add(rest)
            case "map":
                mappings.append(_read_mapping(rest.split()))
    return Process(pid, tuple(threads), nodes, frozenset(devices), tuple(mappings))


def _read_mapping(words: list[str]) -> MemoryMapping:
    fields = dict(word.partition("=")[::2] for word in words[2:])
    pages = {int(key[1:]): int(value) for key, value in fields.items() if re.fullmatch(r"N\d+", key)}
    return MemoryMapping(words[1], pages, fields.get("file", ""), "stack" in fields)


@contextlib.contextmanager
def lab_machine(outer: Daemon, home: Path, profile: str) -> Iterator[LabMachine]:
    """What `carmel lab up` makes, as a user would; `carmel lab down` at the end leaves nothing of it."""
    cli = carmel(outer, home, BOOT_SECONDS)
    environ = {"HOME": str(home)}
    cli("lab", "up", profile, "--timeout", f"{BOOT_SECONDS:.0f}s")
    machine = LabMachine(outer, cli, f"lab-{profile}", environ)
    try:
        yield machine
    finally:
        machine.client.close()
        cli("lab", "down", profile, "--force")
    assert f"lab-{profile}" not in (home / ".config/carmel/config").read_text()
