"""Threads and gates, with real threads and processes of this test's own; moves, on a machine that only notes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.hypervisor.pinning.gate import Gate, waits_at_gate
from carmel.hypervisor.pinning.holding import hold, repin
from carmel.hypervisor.pinning.threads import pin_threads, vcpu_threads
from carmel.hypervisor.qemu_machine import QemuMachine

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="affinity is Linux's")
TWO = Pinning(((4,), (5, 6)), (7,), (0,))


def test_vcpus_have_threads_of_their_own_or_share_one() -> None:
    answer = [{"cpu-index": 0, "thread-id": 100}, {"cpu-index": 1, "thread-id": 101}]
    assert vcpu_threads(answer, TWO) == {100: (4,), 101: (5, 6)}
    assert vcpu_threads([{**each, "thread-id": 100} for each in answer], TWO) == {100: (4, 5, 6)}


@pytest.fixture
def child() -> Iterator[int]:
    """A process with two threads."""
    code = "import threading, sys; threading.Thread(target=sys.stdin.read).start(); print('up', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@linux_only
def test_each_thread_gets_its_cpus(child: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    first, last = cpus[0], cpus[-1]
    vcpu, other = sorted(int(each.name) for each in Path(f"/proc/{child}/task").iterdir())
    pinning = Pinning(((first,),), (last,), (0,))
    pin_threads(child, {vcpu: (first,)}, pinning)
    assert os.sched_getaffinity(vcpu) == {first}
    assert os.sched_getaffinity(other) == {last}
    pin_threads(os.getpid() + 2**22, {}, pinning, helpers=[child])
    assert os.sched_getaffinity(vcpu) == {last}
    with pytest.raises(CannotPin, match="4000"):
        pin_threads(child, {}, Pinning(((4000,),), (4000,), (0,)))


@linux_only
def test_a_process_waits_at_its_gate_and_then_is_another(tmp_path: Path) -> None:
    with Gate(tmp_path) as gate:
        argv = gate.argv([sys.executable, "-c", "import os; print(os.getpid())"])
        process = subprocess.Popen(argv, pass_fds=[gate.descriptor], stdout=subprocess.PIPE)
        assert waits_at_gate(argv, tmp_path.parent)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        gate.open()
        said, _ = process.communicate(timeout=20)
    assert int(said) == process.pid


@linux_only
def test_a_gate_stays_closed_without_its_keeper(tmp_path: Path) -> None:
    """The lock is the waiting process's own."""
    with Gate(tmp_path) as gate:
        process = subprocess.Popen(gate.argv(["true"]), pass_fds=[gate.descriptor])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        with pytest.raises(CannotPin), Gate(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["flock"],
        ["flock", "--no-fork", "/elsewhere/vm/x", "qemu"],
        ["cat", "--no-fork", "/run/carmel/vm/x", "qemu"],
    ],
)
def test_other_processes_wait_at_no_gate_of_ours(words: Sequence[str]) -> None:
    assert not waits_at_gate(words, Path("/run/carmel/vm"))


class Noted:
    """Stands for a ``QemuMachine`` and all that it is moved with: says what was done, fails where told to."""

    def __init__(self, pinning: Pinning | None, fails: Sequence[str] = ()) -> None:
        self.record = self
        self.uid = "uid"
        self.pinning = pinning
        self.pinner = self
        self.pins_threads = True
        self.cpuset = self
        self.pids = (os.getpid(), ())
        self.done: list[tuple[str, Pinning]] = []
        self._fails = list(fails)

    def require_process(self) -> None:
        """It runs."""

    def require(self, pinning: Pinning) -> None:
        if pinning.exclusive:
            raise CannotPin("no")

    async def keep_pinning(self, pinning: Pinning) -> None:
        self._do("record", pinning)
        self.pinning = pinning

    async def change(self, _pids: Sequence[int], _before: Pinning, after: Pinning) -> None:
        self._do("cpuset", after)

    async def execute(self, command: str) -> list[dict[str, Any]]:
        assert command == "query-cpus-fast"
        if self.pinning is not None:
            self._do("threads", self.pinning)
        # No thread of this process, which stands for QEMU, is a vCPU.
        return [{"cpu-index": 0, "thread-id": 0}]

    def _do(self, what: str, pinning: Pinning) -> None:
        self.done.append((what, pinning))
        if what in self._fails:
            self._fails.remove(what)
            raise CannotPin(what) if what != "record" else OSError(28, "No space left on device")


def as_machine(noted: Noted) -> QemuMachine:
    return cast("QemuMachine", noted)


@pytest.fixture
def here() -> Pinning:
    """A place that this process may have: its own."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return Pinning((cpus,), cpus, (0,))


@linux_only
async def test_the_record_is_first(here: Pinning) -> None:
    machine = Noted(here)
    after = Pinning(here.vcpus, here.emulator, (1,))
    await repin(as_machine(machine), after)
    assert [what for what, _ in machine.done] == ["record", "cpuset", "threads"]
    assert machine.pinning == after


@linux_only
@pytest.mark.parametrize("fails", ["record", "cpuset", "threads"])
async def test_a_move_that_fails_is_undone(here: Pinning, fails: str) -> None:
    machine = Noted(here, [fails])
    with pytest.raises(CannotPin) as caught:
        await repin(as_machine(machine), Pinning(here.vcpus, here.emulator, (1,)))
    assert "record" not in fails or "No space left" in caught.value.message
    assert machine.pinning == here
    assert [what for what, pinning in machine.done if pinning == here][:1] == ["cpuset"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TWO, Pinning(((4,),), (7,), (0,))),
        (TWO, Pinning(((4,), ()), (7,), (0,))),
        (TWO, Pinning(((4,), (5,)), (7,), ())),
        (TWO, Pinning(((4,), (5,)), (7,), (0,), exclusive=True)),
        (TWO, Pinning(((4,), (5,)), (7,), (0, 1))),
    ],
)
async def test_what_cannot_be_is_not_begun(before: Pinning, after: Pinning) -> None:
    machine = Noted(before)
    with pytest.raises(CannotPin) as caught:
        await repin(as_machine(machine), after)
    assert caught.value.message
    assert machine.done == []


@linux_only
@pytest.mark.parametrize("fails", [None, "cpuset"])
async def test_a_vm_without_a_place_gets_its_first(here: Pinning, fails: str | None) -> None:
    machine = Noted(None, [fails] if fails else [])
    first = Pinning(((here.emulator[0],),), here.emulator, (0,))
    if fails is None:
        await repin(as_machine(machine), first)
        assert machine.pinning == first
        return
    with pytest.raises(CannotPin):
        await repin(as_machine(machine), first)
    # Back on all the CPUs that it had.
    assert machine.pinning == here


async def test_an_adopted_vm_that_cannot_be_held_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    await hold(as_machine(Noted(TWO, ["cpuset"])))
    assert "not held" in caplog.text
    await hold(as_machine(Noted(None)))
