"""Kill -9 of ``carmeld`` at random points of a load: what was acknowledged is kept, nothing leaks, specs are reached.

The load runs in this thread, one request after the other; a second thread kills the daemon at moments drawn from the
seed and starts it again. A request whose answer was lost may or may not have happened, so the book keeps both.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, field

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig
from carmel.errors import AlreadyExists, CarmelError, Conflict, NotFound
from tests.daemon import Daemon

NAMES = ("a", "b", "c")
POWER = ("PoweredOff", "Paused")
"""Paused guests: they cost memory and no CPU, so that the machine is there for the daemon."""


@dataclass
class Expected:
    """What may be true of one name: the power state that was asked for, ``None`` for no such VM."""

    states: set[str | None] = field(default_factory=lambda: {None})


class Killer(threading.Thread):
    """Kills the daemon ``kills`` times, each 0 to ``longest`` seconds after it was last ready."""

    def __init__(self, daemon: Daemon, rng: random.Random, kills: int, longest: float) -> None:
        super().__init__(name="killer")
        self._daemon, self._rng, self._kills, self._longest = daemon, rng, kills, longest
        self.done = threading.Event()
        self.up = threading.Event()
        self.up.set()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._kills):
                # Not a wait for something: the random moment itself.
                time.sleep(self._rng.random() * self._longest)
                self.up.clear()
                self._daemon.restart()
                self.up.set()
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            self.failure = error
        finally:
            self.up.set()
            self.done.set()


def run_load(daemon: Daemon, seed: int, kills: int, *, longest: float = 2.0) -> int:
    """Load ``daemon`` while it is killed; then check everything. Answers how many requests were acknowledged."""
    rng = random.Random(seed)
    book = {name: Expected() for name in NAMES}
    killer = Killer(daemon, random.Random(rng.random()), kills, longest)
    killer.start()
    acknowledged = 0
    while not killer.done.is_set():
        killer.up.wait(60)
        acknowledged += _one_request(daemon, rng, book)
    killer.join()
    if killer.failure is not None:
        raise killer.failure
    _check(daemon, book)
    return acknowledged


def _one_request(daemon: Daemon, rng: random.Random, book: dict[str, Expected]) -> bool:
    name = rng.choice(NAMES)
    wanted = rng.choice([*POWER, *POWER, None])
    expected = book[name]
    before = set(expected.states)
    expected.states |= {wanted}
    try:
        with daemon.new_client() as client:
            kind = client.kind("vm")
            if wanted is None:
                client.delete(kind, "default", name)
            elif before == {None}:
                client.create(kind, "default", _vm(daemon, name, wanted))
            else:
                client.patch(kind, "default", name, {"spec": {"powerState": wanted}})
    except NotFound:
        expected.states = {None}
        return True
    except (AlreadyExists, Conflict):
        # An answer that was lost, or a deletion that is still under way.
        expected.states = before | {wanted, *POWER}
        return False
    except CarmelError:
        return False
    # A patch of a VM that is being deleted is acknowledged and changes nothing of its end.
    expected.states = {wanted} if None not in before or before == {None} else {wanted, None}
    return True


def _vm(daemon: Daemon, name: str, power: str) -> JsonObject:
    disks = [{"name": "d", "size": "4Mi"}]
    return daemon.micro_vm(name, powerState=power, powerOffMode="Hard", disks=disks, memory={"size": "96Mi"})


def _check(daemon: Daemon, book: dict[str, Expected]) -> None:
    """Nothing acknowledged is lost, everything ends where its spec says, and nothing is there twice or too much."""
    for name, expected in book.items():
        with contextlib.suppress(NotFound):
            if daemon.get("vm", name)["metadata"].get("deletionTimestamp"):
                daemon.wait_gone("vm", name)
        try:
            vm = daemon.get("vm", name)
        except NotFound:
            assert None in expected.states, f"{name} is lost: {expected.states}"
            continue
        wanted = vm["spec"]["powerState"]
        assert wanted in expected.states, f"{name} should be {expected.states}, its spec says {wanted}"
        daemon.wait_for("vm", name, lambda one, wanted=wanted: dig(one, "status", "powerState") == wanted)  # type: ignore[misc]
    vms = daemon.client.list(daemon.client.kind("vm"), Selection("default"))["items"]
    running = [vm for vm in vms if vm["spec"]["powerState"] != "PoweredOff"]
    daemon.wait_for_processes(len(running))
    launches = {dig(vm, "status", "launchID") for vm in running}
    assert None not in launches
    assert len(launches) == len(running)
    daemon.delete_all_vms()
    daemon.wait_no_volumes()
    assert daemon.leftovers() == []
