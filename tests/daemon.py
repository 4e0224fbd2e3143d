"""A real ``carmeld`` in directories of its own, for everybody's system tests.

::

    with running_daemon() as daemon:
        daemon.make_micro_image()
        daemon.create("vm", daemon.micro_vm("w"))
        vm = daemon.wait_for("vm", "w", is_ready)
        daemon.kill()          # kill -9; its VMs run on
        daemon.start()

When the block ends the daemon is stopped, every VM's process is ended, and what is left over (a process, a socket, a
mount) fails the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from carmel.client.api import Client, Selection
from carmel.client.endpoint import Context, UnixEndpoint
from carmel.client.objects import JsonObject, condition, dig
from carmel.paths import Paths
from tests.api import Api, Predicate
from tests.caches import daemons_cache

READY_SECONDS = 30.0
_CARMELD = "import sys; from carmel.daemon import main; sys.exit(main())"
STOP_SECONDS = 10.0


def is_ready(obj: JsonObject) -> bool:
    return condition(obj, "Ready").get("status") == "True"


def has_power(state: str) -> Predicate:
    return lambda vm: dig(vm, "status", "powerState") == state


def ended_by(reason: str) -> Predicate:
    return lambda vm: dig(vm, "status", "lastTermination", "reason") == reason


def not_ready_because(reason: str) -> Predicate:
    return lambda obj: condition(obj, "Ready").get("reason") == reason


class Daemon(Api):
    """One state directory and, most of the time, a daemon on it. For one thread."""

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        """``prefix``: words before the program, of one that becomes it (nsenter)."""
        self.paths = Paths(root / "s", root / "r", root / "c")
        self.log = root / "carmeld.log"
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = dict(environ or {})
        self.prefix = tuple(prefix)
        self._client: Client | None = None

    # -- the process --------------------------------------------------------------------------------------------
    def start(self, *arguments: str) -> None:
        """Start it and return when it is ready: it tells so as it tells systemd (sd_notify(3))."""
        assert self.process is None
        address = self.root / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, self.log.open("ab") as log:
            channel.bind(str(address))
            channel.settimeout(0.5)
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-c", _CARMELD, *arguments],
                env={**self.environment(), "NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            deadline = time.monotonic() + READY_SECONDS
            while True:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in channel.recv(4096):
                        break
                if self.process.poll() is not None or time.monotonic() > deadline:
                    status = self.process.poll()
                    self.kill()
                    raise AssertionError(f"carmeld is not ready (exit status {status}):\n{self.log.read_text()}")
        address.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """What a program needs to find this daemon."""
        return {
            **os.environ,
            "CARMEL_STATE_DIR": str(self.paths.state),
            "CARMEL_RUN_DIR": str(self.paths.runtime),
            "CARMEL_CACHE_DIR": str(self.paths.cache),
            "CARMEL_LOG_LEVEL": "debug",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **self.environ,
        }

    def stop(self) -> int:
        """SIGTERM. Answers the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def restart(self) -> None:
        """kill -9 and start again."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def _ended(self) -> int:
        assert self.process is not None
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"carmeld did not stop:\n{self.log.read_text()}") from None
        finally:
            self.process = None
            if self._client is not None:
                self._client.close()
                self._client = None
        return status

    # -- its API ------------------------------------------------------------------------------------------------
    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self) -> Client:
        """One for another thread, or to be closed early."""
        return Client(Context("test", UnixEndpoint(self.paths.api_socket)))

    def last_words(self, count: int = 40) -> str:
        return "\n".join(self.log.read_text().splitlines()[-count:])

    def qemu_pids(self) -> list[int]:
        """Pids of all QEMUs (and helpers) of this daemon, whether it knows of them or not."""
        return _processes_of(self.root, others_than=self.process.pid if self.process is not None else 0)

    # -- the end ------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Stop the daemon and end what it started."""
        if self.process is not None:
            self.stop()
        for pid in self.qemu_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_for_processes(self, count: int, seconds: float = STOP_SECONDS) -> None:
        """Until this daemon has ``count`` QEMUs: a process that was killed takes a moment to be gone."""
        deadline = time.monotonic() + seconds
        while len(pids := self.qemu_pids()) != count:
            assert time.monotonic() < deadline, f"{len(pids)} processes {pids} instead of {count}"
            time.sleep(0.05)

    def wait_no_volumes(self) -> None:
        kind = self.client.kind("volume")
        for volume in self.client.list(kind, Selection("default"))["items"]:
            self.wait_gone("volume", volume["metadata"]["name"])

    def leftovers(self) -> list[str]:
        """What belongs to VMs on this machine, when there should be none: processes, files, sockets."""
        found = [f"process {pid}" for pid in self.qemu_pids()]
        for place in (self.paths.machines, self.paths.runtime / "vm", self.paths.default_datastore / "volumes"):
            found += [str(one) for one in place.glob("*")] if place.is_dir() else []
        tmp = self.paths.default_datastore / "tmp"
        return found + ([str(one) for one in tmp.glob("*")] if tmp.is_dir() else [])


def _processes_of(root: Path, others_than: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in {others_than, os.getpid()}:
            continue
        with contextlib.suppress(OSError):
            if f"{root}/".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def daemon_directory() -> Iterator[Path]:
    """A short path (for sockets) that QEMU's account can pass, in the cache of packages that tests share."""
    # Not pytest's own directories: those are closed to other users.
    root = Path(tempfile.mkdtemp(prefix="carmel-"))
    root.chmod(0o711)
    shared = daemons_cache()
    shared.mkdir(parents=True, exist_ok=True)
    (root / "c").symlink_to(shared)
    try:
        yield root
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def running_daemon(*arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon that is ready. At the end nothing of it may be left."""
    with daemon_directory() as root:
        daemon = Daemon(root, environ)
        try:
            daemon.start(*arguments)
            yield daemon
        finally:
            daemon.close()
            left = _wait_gone(root)
        assert not left, f"left behind: {left}"


def _wait_gone(root: Path) -> list[int]:
    """Processes that still are there two seconds after they were killed: the kernel needs a moment."""
    deadline = time.monotonic() + 2.0
    while (left := _processes_of(root, 0)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    return left
